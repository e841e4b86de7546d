import Glibc
import VarveOCI
import VarveStore
import Synchronization
import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// An image layout of bytes that no tool of ours would write.
struct HostileLayout {
    let world: StoreWorld
    let path: BytePath

    init(_ world: StoreWorld, _ name: String) throws {
        self.world = world
        path = world.path.appending(BytePath(name))
        try world.shell(
            "mkdir -p \(name)/blobs/sha256; echo '{\"imageLayoutVersion\":\"1.0.0\"}' > \(name)/oci-layout")
    }

    func write(_ name: BytePath, _ bytes: [UInt8]) throws {
        let file = try FileDescriptor.workingDirectory.open(
            path.appending(name), [.writeOnly, .create, .truncate], mode: 0o644)
        try file.fd.writeFull(bytes)
    }

    func write(index: String) throws { try write("index.json", Array(index.utf8)) }

    /// Stores a blob and returns its descriptor, as text.
    func blob(_ bytes: [UInt8], _ type: String, size: Int? = nil) throws -> String {
        let digest = Digest(of: bytes)
        try write(BytePath("blobs/sha256/\(digest.hex)"), bytes)
        return #"{"mediaType":"\#(type)","digest":"\#(digest)","size":\#(size ?? bytes.count)}"#
    }

    func blob(_ text: String, _ type: String, size: Int? = nil) throws -> String {
        try blob(Array(text.utf8), type, size: size)
    }

    /// Tags a descriptor `latest`.
    func tag(_ descriptor: String, also: String = "") throws {
        try write(
            index: #"{"schemaVersion":2,"manifests":[\#(descriptor.dropLast()),"annotations":"#
                + #"{"org.opencontainers.image.ref.name":"latest"}}\#(also)]}"#)
    }

    /// The usual image around layers, given as archives; each text can be changed before it is stored.
    func image(
        _ archives: [[UInt8]], layers: [String]? = nil, config change: (String) -> String = { $0 },
        manifest: (String) -> String = { $0 }
    ) throws {
        let diffIDs = archives.map { "\"\(Digest(of: $0))\"" }.joined(separator: ",")
        let config = try blob(
            change(
                #"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[\#(diffIDs)]}}"#
            ),
            MediaType.ociConfig)
        let layers = try layers ?? archives.map { try blob($0, "application/vnd.oci.image.layer.v1.tar") }
        try tag(
            try blob(
                manifest(
                    #"{"schemaVersion":2,"config":\#(config),"layers":[\#(layers.joined(separator: ","))]}"#),
                MediaType.ociManifest))
    }
}

/// A hostile image, and what must come of it.
struct HostileCase: Sendable, CustomTestStringConvertible {
    enum Outcome: Sendable {
        /// Exit code 3, a message that says this, and nothing left.
        case refused(String)
        /// Exit code 0 and this tree, as `find -printf '%P %y %s'` has it, without the root.
        case taken([String])
        /// Exit code 0, and a shell script in the bundle's rootfs that must succeed.
        case holds(String)
    }

    var testDescription: String
    var options: [String] = []
    /// Layers that are right, and whose chains may stay though the image is refused.
    var rightLayers = 0
    var outcome: Outcome
    var build: @Sendable (HostileLayout) throws -> Void

    init(
        _ description: String, _ outcome: Outcome, options: [String] = [],
        build: @escaping @Sendable (HostileLayout) throws -> Void
    ) {
        testDescription = description
        self.options = options
        self.outcome = outcome
        self.build = build
    }

    /// The same, of which so many layers are right.
    func leaving(_ layers: Int) -> HostileCase {
        var copy = self
        copy.rightLayers = layers
        return copy
    }

    /// An image of layers, each a run of entries by hand.
    init(_ description: String, _ outcome: Outcome, options: [String] = [], layers: [UInt8]...) {
        self.init(description, outcome, options: options) { try $0.image(layers.map { $0 + endOfTar }) }
    }
}

/// One store for all hostile images, beside a tree that must stay as it is. Cases run one after another; it is taken apart
/// when the process exits.
final class HostileWorld: Sendable {
    private static let current = Mutex<HostileWorld?>(nil)

    static func shared() throws -> HostileWorld {
        try current.withLock { current in
            if let current { return current }
            let made = try HostileWorld()
            current = made
            atexit { HostileWorld.current.withLock { $0 = nil } }
            return made
        }
    }

    let world: StoreWorld

    private init() throws {
        world = try StoreWorld(size: 4 << 30)
        try world.shell(
            """
            mkdir -p canary/dir; echo content > canary/file; echo more > canary/dir/file; ln -s file canary/link
            mknod canary/null c 1 3; chmod 640 canary/file; touch -d '2020-01-02 03:04:05.678' canary/file canary/dir
            """)
    }

    /// All that is on the volume but the store's inside and the layouts: names, status with ctime, content.
    func surroundings() throws -> String {
        try world.shell(
            """
            find . -path ./store -prune -o -name 'layout-*' -prune -o -path './bundle-*' -prune -o \\
                ! -path . -printf '%p %y %m %U %G %s %T@ %C@ %l %i\\n' | sort
            cat canary/file canary/dir/file; ls -A store | grep -v '^published$'; ls -A store/snapshots
            """)
    }

    func run(_ one: HostileCase) throws {
        let number = randomName()
        let layout = try HostileLayout(world, "layout-\(number)")
        defer { _ = try? world.shell("rm -rf layout-\(number)") }
        try one.build(layout)
        let before = try surroundings()
        let chains = try world.chains
        let bundle = "bundle-\(number)"
        // Kibibytes of address space: memory is bounded, whatever the image says.
        let result = try runCommand(
            [
                "bash", "-c", "ulimit -v 1500000; exec \"$@\"", "varve", try builtProgram("varve"), "--store",
                "\(world.storePath)", "unpack", "--image", "\(layout.path)",
            ]
                + one.options + ["\(world.bundle(bundle))"])
        let errors = result.errorText
        switch one.outcome {
        case .refused(let text):
            #expect(result.status == 3, "\(result.status): \(errors)")
            #expect(errors.contains(text), "\(errors)")
            // One sentence, whatever the image calls its entries.
            #expect(
                errors.hasPrefix("varve: ") && errors.hasSuffix("\n") && errors.count { $0 == "\n" } == 1,
                "\(errors)")
            #expect(errors.utf8.count < 6000)
            #expect(try world.volume.root.statusIfPresent(of: BytePath(bundle)) == nil)
            #expect(try world.chains.count <= chains.count + one.rightLayers)
        case .taken(let tree):
            guard result.status == 0 else {
                Issue.record("\(result.status): \(errors)")
                break
            }
            let found = try world.shell("find \(bundle)/rootfs -mindepth 1 -printf '%P %y %s\\n'")
            #expect(found.split(separator: "\n").map(String.init).sorted() == tree.sorted())
        case .holds(let script):
            guard result.status == 0 else {
                Issue.record("\(result.status): \(errors)")
                break
            }
            try world.shell("cd \(bundle)/rootfs\n\(script)")
        }
        if result.status == 0 {
            let removed = varve("--store", world.storePath, "bundle", "rm", world.bundle(bundle))
            #expect(removed.code == 0, "\(removed)")
        }
        #expect(try surroundings() == before)
        try world.expectClean()
    }
}
