import VarveFormats
import VarveOCI
import VarveSystem
import Testing

@Suite struct UserTests {
    static let passwd = """
        # accounts
        root:x:0:0:root:/root:/bin/sh
        junk
        broken:x:abc:0::/:
        +::::::
        bob:x:1000:1000::/home/bob:/bin/sh
        twin:x:1000:1001::/home/twin:/bin/sh
        big:x:4294967295:1::/:
        nohome:x:7:7:::
        short:x:8:8

        """
    static let group = """
        root:x:0:
        wheel:x:10:bob,alice
        bad:x:zz:bob
        extra:x:20:bob
        users:x:30:alice,bobby
        """

    struct Case: Sendable, CustomTestStringConvertible {
        var spec: String
        var uid: UInt32 = 0
        var gid: UInt32 = 0
        var others: [UInt32] = []
        var home: String?
        var testDescription: String { spec }
    }

    @Test(arguments: [
        Case(spec: "", home: "/root"),
        Case(spec: "bob", uid: 1000, gid: 1000, others: [10, 20], home: "/home/bob"),
        // The first entry of a number counts.
        Case(spec: "1000", uid: 1000, gid: 1000, others: [10, 20], home: "/home/bob"),
        // A group that is named takes the place of all others.
        Case(spec: "bob:wheel", uid: 1000, gid: 10, home: "/home/bob"),
        Case(spec: "bob:99", uid: 1000, gid: 99, home: "/home/bob"),
        Case(spec: "12:13", uid: 12, gid: 13),
        Case(spec: "12", uid: 12, gid: 0),
        Case(spec: ":wheel", uid: 0, gid: 10, home: "/root"),
        Case(spec: "bob:", uid: 1000, gid: 1000, others: [10, 20], home: "/home/bob"),
        Case(spec: "nohome", uid: 7, gid: 7),
        Case(spec: "short", uid: 8, gid: 8),
        Case(spec: "4294967294", uid: 4_294_967_294),
    ])
    func looksUp(_ test: Case) throws {
        let user = try ContainerUser(
            test.spec, passwd: Array(Self.passwd.utf8), group: Array(Self.group.utf8))
        #expect(user.uid == test.uid)
        #expect(user.gid == test.gid)
        #expect(user.additionalGIDs == test.others)
        #expect(user.home == test.home)
    }

    @Test(arguments: [
        // Not there; there without a number; beyond what Linux has, and what would wrap to root.
        "nobody", "broken", "junk", "big", "bob:nogroup", "bob:bad", "4294967295", "4294967296",
        "99999999999999999999999",
        "-1", "+", "bob:4294967296",
    ])
    func refuses(_ spec: String) {
        expectError(.invalidInput) {
            _ = try ContainerUser(spec, passwd: Array(Self.passwd.utf8), group: Array(Self.group.utf8))
        }
    }

    @Test func numbersNeedNoFiles() throws {
        let user = try ContainerUser("5:6", passwd: nil, group: nil)
        #expect((user.uid, user.gid) == (5, 6))
        #expect(try ContainerUser("", passwd: nil, group: nil) == ContainerUser())
        expectError(.invalidInput) { _ = try ContainerUser("root", passwd: nil, group: nil) }
    }

    @Test func survivesNoise() {
        var generator = SystemRandomNumberGenerator()
        let letters = Array("root:x0\n,+# \u{ff}".utf8)
        for _ in 0..<500 {
            let noise = (0..<80).map { _ in letters[Int.random(in: 0..<letters.count, using: &generator)] }
            _ = try? ContainerUser("root:root", passwd: noise, group: noise)
        }
    }
}

@Suite struct RuntimeConfigTests {
    private func make(
        _ config: String, passwd: String? = nil, options: RuntimeConfig.Options = .init()
    ) throws -> JSONObject {
        let text = """
            {"os":"linux","architecture":"amd64","config":\(config),"rootfs":{"type":"layers","diff_ids":[]}}
            """
        let image = try ImageConfig(try json(text), of: "test")
        let value = try RuntimeConfig.make(
            image, passwd: passwd.map { Array($0.utf8) }, group: nil, options: options)
        return try #require(value.object)
    }

    @Test func usesDefaultsForAnEmptyConfiguration() throws {
        let process = try #require(try make("{}")["process"]?.object)
        #expect(process["args"] == ["sh"])
        #expect(process["cwd"] == "/")
        #expect(
            process["env"] == [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm",
            ])
        #expect(process["user"] == ["uid": 0, "gid": 0])
    }

    @Test func laterVariablesReplaceEarlierOnes() throws {
        let document = try make(
            #"{"Env":["TERM=a","X==","TERM=b","Y="],"User":"0"}"#, passwd: "root:x:0:0::/r:")
        #expect(
            document["process"]?.object?["env"] == [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=b", "X==", "Y=",
                "HOME=/r",
            ])
    }

    /// The image's own wins against that of the passwd file.
    @Test func theImageNamesTheHome() throws {
        let document = try make(#"{"Env":["HOME=/h","A=1"],"User":"0"}"#, passwd: "root:x:0:0::/r:")
        #expect(
            document["process"]?.object?["env"] == [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", "HOME=/h",
                "A=1",
            ])
    }

    @Test(arguments: [
        #"{"Env":["NOVALUE"]}"#, #"{"Env":["=x"]}"#, #"{"Env":["A=\u0000"]}"#, #"{"Cmd":["a\u0000b"]}"#,
        #"{"User":"bob"}"#,
    ])
    func refuses(_ config: String) { expectError(.invalidInput) { _ = try make(config) } }

    @Test func labelsWinAgainstDerivedAnnotations() throws {
        let document = try make(
            #"{"Labels":{"org.opencontainers.image.os":"mine","a":"b"},"ExposedPorts":{"80/tcp":{},"53/udp":{}}}"#
        )
        let annotations = try #require(document["annotations"]?.object)
        #expect(annotations["org.opencontainers.image.os"] == "mine")
        #expect(annotations["org.opencontainers.image.exposedPorts"] == "53/udp,80/tcp")
        #expect(annotations["org.opencontainers.image.author"] == nil)
        #expect(annotations["a"] == "b")
    }

    @Test("Labels that runtimes take for orders are no annotations")
    func labelsThatAreOrders() throws {
        let document = try make(
            #"{"Labels":{"run.oci.seccomp.plugins":"/x.so","org.systemd.property.Slice":"x","org.criu.config":"y","run":"z"}}"#
        )
        let annotations = try #require(document["annotations"]?.object)
        #expect(annotations["run.oci.seccomp.plugins"] == nil && annotations["org.criu.config"] == nil)
        #expect(annotations["org.systemd.property.Slice"] == nil && annotations["run"] == "z")
    }

    @Test func mountsParentsBeforeChildren() throws {
        let document = try make(#"{"Volumes":{"/a/b":{},"/a":{},"c":{}},"WorkingDir":"w"}"#)
        let mounts = document["mounts"]?.array?.compactMap { $0.object?["destination"]?.string } ?? []
        #expect(mounts.suffix(3) == ["/a", "/a/b", "/c"])
        #expect(document["process"]?.object?["cwd"] == "/w")
    }

    @Test("A volume that is the root hides nothing, and one that is named twice is mounted once")
    func volumesOfTheRoot() throws {
        let document = try make(#"{"Volumes":{"/":{},"/./":{},"/a/..":{},"":{},"/b":{},"b":{}}}"#)
        let mounts = document["mounts"]?.array?.compactMap { $0.object?["destination"]?.string } ?? []
        #expect(!mounts.contains { BytePath($0).cleaned.isEmpty })
        #expect(mounts.filter { $0 == "/b" }.count == 1)
    }

    @Test("Volumes are named in one way, and none hides what every container has")
    func volumesOfOtherForms() throws {
        let names = [
            "/x/.", "//y", "/a/../z", "/z/", "/./x", "/proc", "/proc/1", "/./sys/", "/a/../dev/shm", "dev",
            "/..",
            "/process", "/devices",
        ]
        let config = #"{"Volumes":{\#(names.map { "\"\($0)\":{}" }.joined(separator: ","))}}"#
        let document = try make(config)
        let volumes = (document["mounts"]?.array ?? []).compactMap(\.object).filter {
            $0["source"] == "none"
        }.compactMap { $0["destination"]?.string }
        #expect(volumes == ["/devices", "/process", "/x", "/y", "/z"])
        let image = try ImageConfig(
            try json(#"{"os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":\#(config)}"#),
            of: "test")
        #expect(
            RuntimeConfig.warning(of: image)?.contains(
                "no mount for the volume \"/\" and 5 more of the image")
                == true, "\(String(describing: RuntimeConfig.warning(of: image)))")
        let plain = try ImageConfig(
            try json(
                #"{"os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{"Volumes":{"/data":{}}}}"#),
            of: "test")
        #expect(RuntimeConfig.warning(of: plain) == nil)
    }

    @Test func rootlessHasNothingThatNeedsPrivileges() throws {
        var options = RuntimeConfig.Options()
        options.isRootless = true
        options.uidMappings = [.init(containerID: 0, hostID: 1000, size: 1)]
        let document = try make("{}", options: options)
        let linux = try #require(document["linux"]?.object)
        #expect(linux["resources"] == nil)
        #expect(linux["uidMappings"] == [["containerID": 0, "hostID": 1000, "size": 1]])
        let types = linux["namespaces"]?.array?.compactMap { $0.object?["type"]?.string }
        #expect(types == ["cgroup", "pid", "ipc", "uts", "mount", "user"])
    }

    @Test func otherSystemsAreRefused() throws {
        let image = try ImageConfig(
            try json(#"{"os":"windows","rootfs":{"type":"layers"}}"#), of: "test")
        expectError(.invalidInput) { _ = try RuntimeConfig.make(image, passwd: nil, group: nil) }
    }
}
