// swift-tools-version: 6.2

import PackageDescription

/// Every Swift target is built to the same rules: the Swift 6 language mode, warnings as errors, and strict
/// memory safety, so that each use of a pointer is marked where it stands.
let rules: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

/// A library of the system. Where pkg-config does not find it, SwiftPM says which Debian package holds it.
func library(_ name: String, folder: String, pkgConfig: String, package: String) -> Target {
    .systemLibrary(
        name: name, path: "Sources/CLibraries/\(folder)", pkgConfig: pkgConfig, providers: [.apt([package])])
}

let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let system = Target.Dependency.product(name: "SystemPackage", package: "swift-system")

/// What gRPC needs, for the daemon alone: without the trait `Containerd` none of it is built or linked.
let remoteCalls: [Target.Dependency] = [
    ("GRPCCore", "grpc-swift-2"), ("GRPCNIOTransportHTTP2Posix", "grpc-swift-nio-transport"),
    ("GRPCProtobuf", "grpc-swift-protobuf"), ("SwiftProtobuf", "swift-protobuf"),
].map { .product(name: $0.0, package: $0.1, condition: .when(traits: ["Containerd"])) }

/// Imports point down only: a target depends on targets above it in this list, never on one below.
let package = Package(
    name: "varve",
    products: [
        .library(name: "Varve", targets: ["Varve"]),
        .library(name: "VarveDriverKit", targets: ["VarveDriverKit"]),
        .library(name: "VarveDriverTesting", targets: ["VarveDriverTesting"]),
        .library(name: "BtrfsSendStream", targets: ["BtrfsSendStream"]),
        .executable(name: "varve", targets: ["varve"]),
        .executable(name: "varve-containerd", targets: ["varve-containerd"]),
    ],
    traits: [
        .trait(
            name: "Containerd",
            description:
                "varve-containerd, the daemon that serves containerd. It brings gRPC; the command needs none."
        )
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0", traits: []),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
        .package(url: "https://github.com/grpc/grpc-swift-2", from: "2.4.3"),
        .package(url: "https://github.com/grpc/grpc-swift-nio-transport", from: "2.9.2"),
        .package(url: "https://github.com/grpc/grpc-swift-protobuf", from: "2.4.1"),
    ],
    targets: [
        library(
            "CVarveBtrfsUtil", folder: "btrfsutil", pkgConfig: "libbtrfsutil", package: "libbtrfsutil-dev"),
        library("CVarveDeflate", folder: "deflate", pkgConfig: "libdeflate", package: "libdeflate-dev"),
        library("CVarveISAL", folder: "isal", pkgConfig: "libisal", package: "libisal-dev"),
        library("CVarveZlib", folder: "zlib", pkgConfig: "zlib", package: "zlib1g-dev"),
        library("CVarveZstd", folder: "zstd", pkgConfig: "libzstd", package: "libzstd-dev"),
        // The names of the libraries stand here too, so that the package builds on a host without pkg-config.
        .target(
            name: "CBtrfs", dependencies: ["CVarveBtrfsUtil"], path: "CBtrfs",
            linkerSettings: [.linkedLibrary("btrfsutil")]),
        .target(
            name: "CCodecs", dependencies: ["CVarveDeflate", "CVarveISAL", "CVarveZlib", "CVarveZstd"],
            linkerSettings: [
                .linkedLibrary("deflate"), .linkedLibrary("z"), .linkedLibrary("zstd"),
                .linkedLibrary("isal"),
            ]),
        .target(name: "CLinux"),
        .target(name: "VarveFormats", swiftSettings: rules),
        .target(name: "VarveSystem", dependencies: ["VarveFormats", "CLinux", system], swiftSettings: rules),
        .target(name: "BtrfsSendStream", swiftSettings: rules),
        .target(
            name: "VarveBtrfs",
            dependencies: ["VarveSystem", "BtrfsSendStream", "CBtrfs", "CVarveBtrfsUtil", "CLinux", system],
            swiftSettings: rules),
        .target(
            name: "VarveArchive", dependencies: ["VarveFormats", "VarveSystem", "CCodecs", system],
            swiftSettings: rules),
        .target(
            name: "VarveOCI", dependencies: ["VarveFormats", "VarveSystem", crypto, system],
            swiftSettings: rules),
        .target(
            name: "VarveLayers",
            dependencies: [
                "VarveFormats", "VarveSystem", "VarveBtrfs", "BtrfsSendStream", "VarveArchive", "VarveOCI",
                logging, system,
            ],
            swiftSettings: rules),
        .target(
            name: "VarveStore",
            dependencies: [
                "VarveFormats", "VarveSystem", "VarveBtrfs", "BtrfsSendStream", "VarveArchive", "VarveOCI",
                "VarveLayers",
                logging, system,
            ],
            swiftSettings: rules),
        .target(
            name: "Varve",
            dependencies: [
                "VarveSystem", "VarveBtrfs", "BtrfsSendStream", "VarveArchive", "VarveOCI", "VarveLayers",
                "VarveStore", logging,
                system,
            ],
            swiftSettings: rules),
        .target(
            name: "VarveDriverKit",
            dependencies: ["Varve", "VarveStore", "VarveLayers", "VarveOCI", "VarveSystem", system],
            swiftSettings: rules),
        .target(
            name: "VarveDriverTesting",
            dependencies: [
                "VarveDriverKit", "VarveStore", "VarveLayers", "VarveOCI", "VarveArchive", "VarveSystem",
                system,
            ],
            swiftSettings: rules),
        .target(
            name: "VarveCommands",
            dependencies: [
                "Varve", "VarveStore", "VarveLayers", "VarveOCI", "VarveArchive", "VarveBtrfs",
                "BtrfsSendStream", "VarveFormats", "VarveSystem",
                argumentParser, logging, system,
            ],
            swiftSettings: rules),
        .executableTarget(name: "varve", dependencies: ["VarveCommands"], swiftSettings: rules),
        .target(
            name: "VarveContainerd",
            dependencies: [
                "VarveStore", "VarveLayers", "VarveOCI", "VarveArchive", "VarveBtrfs", "VarveFormats",
                "VarveSystem", crypto,
                logging,
                system,
            ],
            swiftSettings: rules),
        // Generated (Scripts/generate-stubs), and like the next one empty without the trait `Containerd`.
        .target(name: "ContainerdInterface", dependencies: remoteCalls, exclude: ["Protos"]),
        .target(
            name: "VarveContainerdRPC",
            dependencies: [
                "VarveContainerd", "ContainerdInterface", "VarveStore", "VarveOCI", "VarveArchive",
                "VarveFormats", "VarveSystem",
                logging, system,
            ] + remoteCalls
                + ["NIOCore", "NIOHTTP1", "NIOPosix"].map {
                    .product(name: $0, package: "swift-nio", condition: .when(traits: ["Containerd"]))
                },
            swiftSettings: rules),
        .executableTarget(
            name: "varve-containerd",
            dependencies: [
                "VarveContainerd", "VarveContainerdRPC", "VarveStore", "VarveFormats", "VarveSystem",
                argumentParser, logging,
                system,
            ],
            swiftSettings: rules),

        .executableTarget(
            name: "embedding-example", dependencies: ["Varve", system], path: "Tests/EmbeddingExample",
            swiftSettings: rules),
        .executableTarget(
            name: "builder-example", dependencies: ["Varve", "VarveFormats", crypto, system],
            path: "Tests/BuilderExample", swiftSettings: rules),
        .executableTarget(
            name: "driver-example", dependencies: ["Varve", "VarveDriverKit", system],
            path: "Tests/DriverExample",
            swiftSettings: rules),
        .executableTarget(
            name: "crowd", dependencies: ["Varve", "VarveStore", "VarveSystem", system], path: "Tests/Crowd",
            swiftSettings: rules),
        .executableTarget(
            name: "peak-memory", dependencies: ["VarveCommands", "VarveSystem", system],
            path: "Tests/PeakMemory",
            swiftSettings: rules),
        .target(
            name: "TestSupport",
            dependencies: ["VarveSystem", "VarveBtrfs", "CVarveBtrfsUtil", "CLinux", system],
            path: "Tests/TestSupport", swiftSettings: rules),
        .testTarget(
            name: "VarveSystemTests", dependencies: ["VarveFormats", "VarveSystem", "TestSupport", system],
            swiftSettings: rules),
        .executableTarget(
            name: "send-stream-example", dependencies: ["BtrfsSendStream"], path: "Tests/SendStreamExample",
            swiftSettings: rules),
        .testTarget(
            name: "BtrfsSendStreamTests",
            dependencies: ["BtrfsSendStream", "TestSupport", "VarveSystem", "send-stream-example", system],
            swiftSettings: rules),
        .testTarget(
            name: "VarveBtrfsTests",
            dependencies: ["VarveBtrfs", "BtrfsSendStream", "VarveSystem", "TestSupport", system],
            swiftSettings: rules),
        .testTarget(
            name: "VarveArchiveTests",
            dependencies: ["VarveArchive", "VarveSystem", "CCodecs", "TestSupport", system],
            swiftSettings: rules),
        .testTarget(
            name: "VarveOCITests",
            dependencies: ["VarveOCI", "VarveFormats", "VarveSystem", "TestSupport", "peak-memory", system],
            swiftSettings: rules),
        .target(
            name: "DeltaChecks",
            dependencies: ["VarveLayers", "VarveArchive", "VarveSystem", "TestSupport", logging, system],
            path: "Tests/DeltaChecks", swiftSettings: rules),
        .executableTarget(
            name: "fuzz-delta", dependencies: ["DeltaChecks", "TestSupport", "VarveSystem", system],
            path: "Tests/FuzzDelta",
            swiftSettings: rules),
        .target(
            name: "FuzzTargets",
            dependencies: [
                "VarveContainerd", "VarveStore", "VarveLayers", "VarveOCI", "VarveArchive", "BtrfsSendStream",
                "VarveFormats",
                "VarveSystem",
                "TestSupport", logging, system,
            ],
            path: "Tests/FuzzTargets", swiftSettings: rules),
        .executableTarget(
            name: "fuzz", dependencies: ["FuzzTargets", "TestSupport", "VarveSystem", system],
            path: "Tests/Fuzz", swiftSettings: rules),
        .testTarget(
            name: "FuzzTests", dependencies: ["FuzzTargets", "TestSupport"], swiftSettings: rules),
        .testTarget(
            name: "VarveLayersTests",
            dependencies: [
                "CLinux",
                "VarveLayers", "DeltaChecks", "VarveBtrfs", "VarveArchive", "VarveOCI", "VarveFormats",
                "VarveSystem",
                "TestSupport", system,
            ],
            swiftSettings: rules),
        .target(
            name: "ContainerdChecks",
            dependencies: [
                "VarveContainerd", "VarveStore", "VarveOCI", "VarveArchive", "VarveSystem", "TestSupport",
                logging,
                system,
            ],
            path: "Tests/ContainerdChecks", swiftSettings: rules),
        .executableTarget(
            name: "daemon-calls",
            dependencies: [
                "ContainerdChecks", "VarveContainerd", "VarveStore", "VarveSystem", logging, system,
            ],
            path: "Tests/DaemonCalls", swiftSettings: rules),
        .executableTarget(
            name: "daemon-histories",
            dependencies: ["ContainerdChecks", "VarveStore", "VarveSystem", system],
            path: "Tests/DaemonHistories", swiftSettings: rules),
        .testTarget(
            name: "VarveContainerdTests",
            dependencies: [
                "VarveContainerd", "ContainerdChecks", "daemon-calls", "VarveCommands", "VarveStore",
                "VarveLayers", "VarveOCI", "VarveArchive",
                "VarveFormats", "VarveSystem",
                "TestSupport", logging, system,
            ],
            swiftSettings: rules),
        .testTarget(
            name: "VarveTests",
            dependencies: [
                "Varve", "VarveCommands", "VarveStore", "VarveLayers", "VarveOCI", "VarveArchive",
                "VarveBtrfs", "VarveFormats", "VarveSystem",
                "VarveDriverKit", "VarveDriverTesting", "builder-example", "driver-example", "DeltaChecks",
                "TestSupport",
                crypto, logging, system,
            ],
            swiftSettings: rules),
    ],
    swiftLanguageModes: [.v6]
)
