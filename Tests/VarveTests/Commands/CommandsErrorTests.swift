import VarveFormats
import Testing
import VarveOCI
import VarveStore
import VarveSystem

@testable import VarveCommands

/// How the command says why it failed.
@Suite struct CommandsErrorTests {
    /// One of each kind, by a switch that does not compile when a kind is added and not listed here. Paths and names hold what a
    /// shell would take apart.
    private static func next(after remedy: VarveError.Remedy?) -> VarveError.Remedy? {
        let path: BytePath = "/a b/$c"
        guard let remedy else { return .name("a directory") }
        return switch remedy {
        case .name: .follow("use no slash")
        case .follow: .correctPath
        case .correctPath: .nameStoreOfBundle
        case .nameStoreOfBundle: .choosePlatform
        case .choosePlatform: .chooseSourceAutomatically
        case .chooseSourceAutomatically: .listChains
        case .listChains: .listSnapshots
        case .listSnapshots: .listContainerds
        case .listContainerds: .listTags(path)
        case .listTags: .runAsRoot
        case .runAsRoot: .runAsRootOfHost
        case .runAsRootOfHost: .runAsRootOrRootless
        case .runAsRootOrRootless: .useStoreOfOwn(path)
        case .useStoreOfOwn: .gainAccess
        case .gainAccess: .gainRight("CAP_SYS_ADMIN")
        case .gainRight: .allowSubvolumeRemoval(path)
        case .allowSubvolumeRemoval: .clearFlag("i", of: path)
        case .clearFlag: .closeToOthers(path, orSticky: false)
        case .closeToOthers(_, orSticky: false): .closeToOthers(path, orSticky: true)
        case .closeToOthers: .changeOwner(path)
        case .changeOwner: .freeSpace(on: path)
        case .freeSpace(on: .some): .freeSpace(on: nil)
        case .freeSpace: .freeMetadata(on: path)
        case .freeMetadata(on: .some): .freeMetadata(on: nil)
        case .freeMetadata: .raiseQuota(on: path)
        case .raiseQuota(on: .some): .raiseQuota(on: nil)
        case .raiseQuota: .raiseQuotaGroup(on: path)
        case .raiseQuotaGroup(on: .some): .raiseQuotaGroup(on: nil)
        case .raiseQuotaGroup: .raiseLimit(.openFiles)
        case .raiseLimit(.openFiles): .raiseLimit(.processes)
        case .raiseLimit(.processes): .raiseLimit(.memory)
        case .raiseLimit(.memory): .raiseLimit(.imageSize)
        case .raiseLimit(.imageSize): .raiseLimit(.imageEntries)
        case .raiseLimit(.imageEntries): .raiseLimit(.archive)
        case .raiseLimit(.archive): .enlargeLoopback(atLeast: 1)
        case .enlargeLoopback: .tryAgain
        case .tryAgain: .tryAgainLater
        case .tryAgainLater: .wait
        case .wait: .endUsers(of: path)
        case .endUsers: .endDaemon("node-1")
        case .endDaemon: .endWriters
        case .endWriters: .unmount(path, recursively: false)
        case .unmount(_, recursively: false): .unmount(path, recursively: true)
        case .unmount: .turnOffSwap(path)
        case .turnOffSwap(.some): .turnOffSwap(nil)
        case .turnOffSwap: .mountWritable
        case .mountWritable: .makeSubvolumeWritable(path)
        case .makeSubvolumeWritable: .makeWritable(path)
        case .makeWritable: .loadModule("btrfs")
        case .loadModule("btrfs"): .loadModule("loop")
        case .loadModule: .install("btrfs-progs")
        case .install: .checkFileSystem("btrfs scrub")
        case .checkFileSystem: .createStore(path)
        case .createStore: .createLoopbackStore(path, otherwise: false)
        case .createLoopbackStore(_, otherwise: false): .createLoopbackStore(path, otherwise: true)
        case .createLoopbackStore: .createStoreOnBtrfs
        case .createStoreOnBtrfs: .mountStore(path, isNew: false)
        case .mountStore(_, isNew: false): .mountStore(path, isNew: true)
        case .mountStore: .restoreStore
        case .restoreStore: .useNewerVersion
        case .useNewerVersion: .useBtrfsStore
        case .useBtrfsStore: .useAnotherDriver
        case .useAnotherDriver: .placeBundle(near: path)
        case .placeBundle: .unpack(to: path, driver: nil)
        case .unpack(_, driver: nil): .unpack(to: path, driver: "hooks")
        case .unpack: .unpackAgain(losesChanges: false)
        case .unpackAgain(losesChanges: false): .unpackAgain(losesChanges: true)
        case .unpackAgain: .repackWithoutRefresh
        case .repackWithoutRefresh: .compareSnapshot(path)
        case .compareSnapshot: .removeBundle(path, or: "another bundle")
        case .removeBundle: .removeSnapshot("a b")
        case .removeSnapshot("a b"): .removeSnapshot("-x")
        case .removeSnapshot: .saveAndRemoveSnapshot("-x", at: path)
        case .saveAndRemoveSnapshot: .remove(or: nil)
        case .remove(or: nil): .remove(or: "another directory")
        case .remove: .createLayout(path)
        case .createLayout: .createLayoutOrName(path, image: "docker://debian:12")
        case .createLayoutOrName: .pullImage("docker://debian:12")
        case .pullImage: .copyImageAgain
        case .copyImageAgain: .getImageAgain
        case .getImageAgain: .copyImage("copy it")
        case .copyImage: .replaceLayer("fetch it again")
        case .replaceLayer: .changeImage("give them different tags")
        case .changeImage: .importImage(source: "docker://x y", layout: "c d", tag: "latest")
        case .importImage: .convertImage
        case .convertImage: .decryptImage
        case .decryptImage: .compressWithSmallerWindow
        case .compressWithSmallerWindow: .copyLayout
        case .copyLayout: .copyLayoutToWritable
        case .copyLayoutToWritable: .mapUser
        case .mapUser: .mapGroup
        case .mapGroup: .changeFile("move it up")
        case .changeFile: .removeAttribute("user.a b")
        case .removeAttribute: .removeACL
        case .removeACL: .configureHooks
        case .configureHooks: .nameHooks
        case .nameHooks: .correctHooks("leave the hook out")
        case .correctHooks: .distrust
        case .distrust: .moveAway
        case .moveAway: .moveToOwnDirectory
        case .moveToOwnDirectory: .deleteSubvolume
        case .deleteSubvolume: .restoreSnapshot
        case .restoreSnapshot: .askForFirstVersion
        case .askForFirstVersion: .report
        case .report: nil
        }
    }

    private static let remedies: [VarveError.Remedy] = Array(
        sequence(state: nil as VarveError.Remedy?) { last in
            last = next(after: last)
            return last
        })

    @Test("The words of the library name no flag and no verb of the command", arguments: remedies)
    func libraryWords(_ remedy: VarveError.Remedy) {
        let words = "\(remedy)"
        #expect(!words.isEmpty && words.first?.isUppercase == false && !words.hasSuffix("."))
        for flag in [" --", " -", "varve ", "umount", "chmod", "ulimit", "VARVE_"] where words.contains(flag)
        {
            #expect(remedy == .useNewerVersion, "\(words)")
        }
    }

    @Test("The words of the command quote paths and names for a shell", arguments: remedies)
    func shellWords(_ remedy: VarveError.Remedy) {
        let words = remedy.shellWords
        #expect(!words.isEmpty && !words.hasSuffix("."))
        // Behind the name of a program, nothing stands that a shell takes apart. What is shown to be read stands in `"`.
        let bare = words.replacing("'/a b/$c'", with: "").replacing("\"/a b/$c\"", with: "")
            .replacing("\"/a b/$c/bundles\"", with: "")
        #expect(!bare.contains("$c") && !bare.contains("/a b"), "\(words)")
        for program in ["umount ", "swapoff ", "chmod ", "chattr ", "store init ", "bundle rm "]
        where words.contains(program) && words.contains("$c") {
            #expect(words.contains("'/a b/$c'"), "\(words)")
        }
    }

    @Test("An image of another tool comes with the line that makes a layout of it")
    func importing() {
        let run = varve("stat", "--image", "dir:it's")
        let line = "skopeo copy 'dir:it'\\''s' 'oci:it'\\''s:latest', and then name it 'it'\\''s:latest'\n"
        #expect(run.code == 2 && run.errorText.hasSuffix("; make one of it with: " + line), "\(run)")
    }

    // MARK: --error-format json

    private static func object(_ run: CommandRun) throws -> JSONObject {
        #expect(run.errors.last == UInt8(ascii: "\n"))
        return try #require(JSONValue(parsing: Array(run.errors.dropLast())).object)
    }

    struct Case: CustomStringConvertible {
        var words: [BytePath]
        var code: VarveError.Code
        var subject: String?
        var reason: String
        var remedy: String?
        var description: String { words.map(\.description).joined(separator: " ") }
    }

    @Test(
        "With --error-format json, one object on standard error says why, also of wrong usage",
        arguments: [
            Case(
                words: ["ls", "--layout", "/none here"], code: .notFound, subject: "/none here",
                reason: "there is no image layout at /none here",
                remedy: "make one with: varve init --layout '/none here'"),
            Case(
                words: ["store", "ls", "--store", "/none"], code: .notFound, subject: "/none",
                reason: "there is no store in \"/none\"",
                remedy: "make one with: varve store init /none [--loopback SIZE]"),
            Case(
                words: ["stream", "dump", "/dev/null"], code: .invalidInput, subject: nil,
                reason:
                    "cannot read the send stream at byte 0: it is empty; was it written by a btrfs send that failed?",
                remedy: nil),
            Case(
                words: ["frobnicate"], code: .usage, subject: nil,
                reason: "there is no command 'varve frobnicate'; it is one of ", remedy: "see 'varve --help'"),
            Case(
                words: ["unpack", "--image"], code: .usage, subject: nil,
                reason: "missing value for '--image <image>'", remedy: "see 'varve unpack --help'"),
            Case(
                words: ["diff", "-z", "--format", "json", "a"], code: .usage, subject: nil,
                reason: "-z and --format json exclude each other; give one of them", remedy: nil),
            Case(
                words: ["store", "rm", "x"], code: .usage, subject: "x",
                reason: "\"x\" is not the name of a chain", remedy: "varve store ls lists them"),
        ])
    func json(_ test: Case) throws {
        for words in [["--error-format", "json"] + test.words, ["--error-format=json"] + test.words] {
            let run = varve(words)
            let object = try Self.object(run)
            #expect(
                object.members.map(\.key) == ["code", "subject", "reason", "remedy", "exitCode"], "\(run)")
            #expect(object["code"]?.string == test.code.rawValue, "\(run)")
            #expect(object["exitCode"]?.int64 == Int64(run.code) && run.code == test.code.exitCode, "\(run)")
            #expect(object["subject"]?.string == test.subject, "\(run)")
            #expect(object["reason"]?.string?.hasPrefix(test.reason) == true, "\(run)")
            if let remedy = test.remedy { #expect(object["remedy"]?.string == remedy, "\(run)") }
            #expect(run.text == "")
        }
        // Said in a sentence without it, and with another format.
        for words in [test.words, ["--error-format", "text"] + test.words] {
            #expect(varve(words).errorText.hasPrefix("varve: "))
        }
    }

    @Test("A subject that is not UTF-8 comes in base64")
    func bytes() throws {
        let path = try #require(BytePath([UInt8(ascii: "/"), 0xff]))
        let object = try Self.object(varve(["--error-format", "json", "ls", "--layout", path]))
        #expect(object["subjectBase64"]?.string == "L/8=" && object["subject"] == nil)
        #expect(object["reason"]?.string == "there is no image layout at /\\xff")
    }

    @Test("Of several things that fail, each has an object")
    func several() throws {
        let run = varve("--error-format", "json", "bundle", "rm", "/none/a", "/none/b")
        let lines = run.errors.split(separator: UInt8(ascii: "\n"))
        #expect(lines.count == 2 && run.code == 4, "\(run)")
        for line in lines {
            #expect(try JSONValue(parsing: Array(line)).object?["code"]?.string == "notFound")
        }
    }

    @Test("A cancelled command says so in an object")
    func interrupted() throws {
        let cancellation = Cancellation()
        cancellation.cancel()
        let run = varve(
            ["--error-format", "json", "ls", "--layout", "/none"], cancellation: cancellation)
        let object = try Self.object(run)
        #expect(
            object["code"]?.string == "interrupted" && object["exitCode"]?.int64 == 130 && run.code == 130)
    }

    @Test("What the option's own value is wrong for is said in a sentence")
    func wrongFormat() {
        let run = varve("--error-format", "xml", "ls", "--layout", "/none")
        #expect(
            run.code == 2 && run.errorText.hasPrefix("varve: the value 'xml' is invalid for '--error-format"))
        // Behind `--` it is an argument.
        #expect(varve("ls", "--layout", "/none", "--", "--error-format=json").errorText.hasPrefix("varve: "))
    }
}
