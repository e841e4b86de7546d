/// A command of umoci as its manual pages have it (0.4.7 to 0.6), and the command of varve that does the same.
struct UmociVerb {
    struct Flag {
        enum Kind {
            /// Given or not: `--flag`, `--flag=false`.
            case toggle
            /// The last one counts.
            case value
            /// All of them count.
            case list
        }

        var name: String
        var kind: Kind
        var help: String
        /// What varve calls it.
        var ours: String
    }

    /// The first is the one that help shows, the others are aliases.
    var names: [String]
    var abstract: String
    /// The words of varve's command.
    var ours: [String]
    var flags: [Flag]
    /// The flag without which the command means nothing.
    var mandatory: String
    /// Names of the arguments behind the flags.
    var arguments: [String] = []
    /// A flag that takes the first argument away: `insert --whiteout`.
    var shortening: String?
    /// Help does not list it.
    var isHidden = false

    static func toggle(_ name: String, _ help: String) -> Flag {
        Flag(name: name, kind: .toggle, help: help, ours: name)
    }

    static func value(_ name: String, _ help: String, ours: String? = nil) -> Flag {
        Flag(name: name, kind: .value, help: help, ours: ours ?? name)
    }

    static func list(_ name: String, _ help: String) -> Flag {
        Flag(name: name, kind: .list, help: help, ours: name)
    }
}

extension UmociVerb {
    static let all: [UmociVerb] = [
        UmociVerb(
            names: ["config"], abstract: "modifies the image configuration of an OCI image", ours: ["config"],
            flags: configuration + changed + history + [image], mandatory: "image"),
        UmociVerb(
            names: ["unpack"], abstract: "unpacks a reference into an OCI runtime bundle", ours: ["unpack"],
            flags: [
                keepDirlinks, strictXattrs,
                toggle("mtree", "write the mtree file that other releases of umoci need to repack it"),
            ]
                + maps + [image], mandatory: "image", arguments: ["bundle"]),
        UmociVerb(
            names: ["repack"], abstract: "repacks an OCI runtime bundle into a reference", ours: ["repack"],
            flags: [
                list("mask-path", "leave out changes at and below this path"),
                toggle("no-mask-volumes", "do not leave out the volumes of the image"),
                toggle("refresh-bundle", "count later changes of the bundle from now on"), compress,
            ] + history + [image], mandatory: "image", arguments: ["bundle"]),
        UmociVerb(
            names: ["new"], abstract: "creates a blank tagged OCI image", ours: ["new"], flags: [image],
            mandatory: "image"),
        UmociVerb(
            names: ["tag"], abstract: "creates a new tag in an OCI image", ours: ["tag"], flags: [image],
            mandatory: "image", arguments: ["new-tag"]),
        UmociVerb(
            names: ["remove", "rm"], abstract: "removes a tag from an OCI image", ours: ["rm"],
            flags: [image], mandatory: "image"),
        UmociVerb(
            names: ["stat"], abstract: "displays status information of an image manifest", ours: ["stat"],
            flags: [toggle("json", "as one JSON document"), image], mandatory: "image"),
        UmociVerb(
            names: ["insert"], abstract: "inserts content into an OCI image", ours: ["insert"],
            flags: [
                toggle("whiteout", "delete the target"),
                toggle("opaque", "hide what lower layers have in the target"), compress,
            ] + changed + history + maps + [image], mandatory: "image", arguments: ["source", "target"],
            shortening: "whiteout"),
        UmociVerb(
            names: ["gc"], abstract: "garbage-collects an OCI image's blobs", ours: ["gc"], flags: [layout],
            mandatory: "layout"),
        UmociVerb(
            names: ["init"], abstract: "creates a new OCI layout", ours: ["init"], flags: [layout],
            mandatory: "layout"),
        UmociVerb(
            names: ["list", "ls"], abstract: "lists the set of tags in an OCI layout", ours: ["ls"],
            flags: [layout], mandatory: "layout"),
    ]

    /// The commands of `umoci raw`.
    static let raw: [UmociVerb] = [
        UmociVerb(
            names: ["add-layer"], abstract: "adds a layer archive verbatim to an image",
            ours: ["raw", "add-layer"], flags: [compress] + changed + history + [image], mandatory: "image",
            arguments: ["newlayer.tar"]),
        UmociVerb(
            names: ["runtime-config", "config"],
            abstract: "generates an OCI runtime configuration for an image", ours: ["raw", "runtime-config"],
            flags: [value("rootfs", "the root file system in which users are looked up")] + maps + [image],
            mandatory: "image", arguments: ["config.json"]),
        UmociVerb(
            names: ["unpack"], abstract: "unpacks a reference into a rootfs", ours: ["raw", "unpack"],
            flags: [keepDirlinks, strictXattrs] + maps + [image], mandatory: "image", arguments: ["rootfs"]),
        UmociVerb(
            names: ["mtree-validate"], abstract: "validates an mtree manifest",
            ours: ["raw", "mtree-validate"],
            flags: [
                value("manifest", "the mtree manifest"),
                value("file", "alias of --manifest", ours: "manifest"),
                value("f", "alias of --manifest", ours: "manifest"), value("path", "the directory"),
                value("p", "alias of --path", ours: "path"), value("add-keywords", "compare these too"),
                value("K", "alias of --add-keywords", ours: "add-keywords"),
                value("use-keywords", "compare these alone"),
                value("k", "alias of --use-keywords", ours: "use-keywords"),
                toggle("umoci-keywords", "compare what umoci does"),
                toggle("rootless", "do without privileges"),
            ], mandatory: "manifest", isHidden: true),
    ]

    private static let image = value("image", "the OCI image, as path[:tag]")
    private static let layout = value("layout", "path to an OCI image layout")
    private static let compress = value(
        "compress", "how the new layer is compressed: auto, gzip, zstd or none")
    private static let keepDirlinks = toggle("keep-dirlinks", "keep symbolic links to directories")
    private static let strictXattrs = toggle(
        "strict-xattrs", "refuse extended attributes that cannot be set here")
    private static let maps = [
        list("uid-map", "a mapping of user ids, container:host[:size]"),
        list("gid-map", "a mapping of group ids, container:host[:size]"),
        toggle("rootless", "do without privileges"),
    ]
    private static let changed = [value("tag", "the tag of the new image (default: that of --image)")]
    private static let history = [
        toggle("no-history", "add no entry to the history"),
        value("history.author", "author of the entry"), value("history.comment", "comment of the entry"),
        value("history.created", "time of the entry"), value("history.created_by", "command of the entry"),
    ]
    private static let configuration = [
        value("config.user", "user[:group]"), list("config.exposedports", "a port"),
        list("config.env", "a variable, name=value"), list("config.entrypoint", "a word of the entrypoint"),
        list("config.cmd", "a word of the command"), list("config.volume", "a volume"),
        list("config.label", "a label, name=value"), value("config.workingdir", "the working directory"),
        value("config.stopsignal", "the signal that stops it"), value("created", "time of the image"),
        value("author", "author of the image"),
        value("architecture", "alias of --platform.arch", ours: "platform.arch"),
        value("os", "alias of --platform.os", ours: "platform.os"),
        value("platform.arch", "the architecture"), value("platform.os", "the operating system"),
        value("platform.variant", "the variant of the architecture"),
        list("manifest.annotation", "an annotation, name=value"), list("clear", "what to empty first"),
    ]
}
