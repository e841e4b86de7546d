// The messages and services of containerd's interface that are served or called here. All else in this module is generated from
// the files in Protos by Scripts/generate-stubs, and is empty without the package trait `Containerd`.
