import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// Runtimes that take bundles as they are.
enum ContainerRuntime: String, CaseIterable, Sendable {
    case crun, runc

    /// The shell words that run the bundle in `$1`, with `$2` as its state's directory; control groups are not needed.
    var words: String {
        let options = self == .crun ? "--cgroup-manager=disabled" : ""
        return "\(rawValue) --root \"$2\" \(options) run --bundle \"$1\" \"varve-test-$$\""
    }

    /// Runs the words behind it on any host: the second hierarchy of a hybrid one is kept out of crun's sight.
    static let host = """
        unshare --mount --propagation private sh -c '\
        if [ -d /sys/fs/cgroup/unified ]; then umount /sys/fs/cgroup/unified; fi; exec "$@"' sh
        """
}

@Suite struct RuntimeTests {
    /// An image, and what its process prints.
    struct Case: Sendable, CustomTestStringConvertible {
        var name: String
        /// Arguments of `umoci config`.
        var options: String
        var input = ""
        var output: String
        var testDescription: String { name }
    }

    /// A root file system of this host's Debian: its shell, some programs with their libraries, and its accounts.
    static let filling = """
        cd "$1"
        for program in sh id cat grep ls touch sleep; do
          path=$(command -v $program); cp --parents -L $path .
          ldd $path | grep -o '/[^ ]*' | while read library; do cp --parents -L -n $library . 2>/dev/null || :; done
        done
        mkdir -p proc dev sys srv data tmp etc; [ -e bin ] || ln -s usr/bin bin
        cp /etc/debian_version etc/; chmod 1777 tmp
        printf 'root:x:0:0:root:/root:/bin/sh\\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\\n' > etc/passwd
        printf 'root:x:0:\\ndaemon:x:1:\\nvideo:x:44:daemon\\nadm:x:4:root,daemon\\n' > etc/group
        """

    static let cases = [
        // Name, home and groups are looked up in the image.
        Case(
            name: "Debian with a user set by name",
            options:
                "--config.user daemon --config.workingdir /srv --config.cmd sh --config.cmd -c --config.cmd 'id; echo $HOME $PWD; ls -d /etc/debian_version'",
            output:
                "uid=1(daemon) gid=1(daemon) groups=1(daemon),4(adm),44(video)\n/usr/sbin /srv\n/etc/debian_version\n"
        ),
        Case(
            name: "volumes, entrypoint and cmd",
            options:
                "--config.volume /data --config.volume /var/cache/x --config.env WORD=w --config.stopsignal SIGINT --config.entrypoint sh --config.entrypoint -c --config.entrypoint 'touch /data/x /var/cache/x/y; grep -c \"^none /\\(data\\|var/cache/x\\) tmpfs\" /proc/mounts; echo $0 $1 $WORD' --config.cmd first --config.cmd second",
            output: "2\nfirst second w\n"),
        // A shell, which reads what it is given.
        Case(
            name: "neither", options: "--author nobody", input: "id -u; echo $PATH",
            output: "0\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"),
    ]

    @Test(arguments: ContainerRuntime.allCases)
    func runs(_ runtime: ContainerRuntime) throws {
        let shop = try Workshop()
        let first = shop.bundle("first")
        _ = shop.text("unpack", "--image", shop.image("empty"), first)
        try shell(Self.filling, first.appending("rootfs"))
        _ = shop.text("repack", "--image", shop.image("filled"), first)
        for (index, test) in Self.cases.enumerated() {
            let (tag, bundle) = ("case\(index)", shop.bundle("bundle\(index)"))
            try runSuccessfully([
                "sh", "-ec", "umoci config --image \(shop.image("filled")) --tag \(tag) \(test.options)",
            ])
            _ = shop.text("unpack", "--image", shop.image(tag), bundle)
            // Nothing but the terminal, which a test has not got.
            try shell(
                "cd \"$1\"; jq '.process.terminal = false' config.json > c; mv c config.json", bundle)
            let result = try runCommand(
                [
                    "sh", "-c", "exec \(ContainerRuntime.host) \(runtime.words)", "sh", "\(bundle)",
                    "\(shop.bundle("state"))",
                ],
                input: Array(test.input.utf8))
            #expect(
                result.status == 0 && result.outputText == test.output,
                "\(runtime.rawValue), \(test.name): \(result.status) \(result.outputText) \(result.errorText)"
            )
        }
    }

    /// A rootless bundle, run by the user that it belongs to.
    @Test(arguments: ContainerRuntime.allCases)
    func runsRootless(_ runtime: ContainerRuntime) throws {
        let user = try OrdinaryUser()
        try user.asRoot(
            "umoci init --layout L; umoci new --image L:a; umoci unpack --image L:a b >/dev/null; mkdir -m 777 state"
        )
        try shell(Self.filling, user.volume.path.appending("b/rootfs"))
        try user.asRoot(
            """
            umoci repack --image L:a b >/dev/null; rm -r b
            umoci config --image L:a --config.cmd sh --config.cmd -c --config.cmd 'id -u; touch /srv/x; ls -n /srv'
            chown -R \(OrdinaryUser.id):\(OrdinaryUser.id) L
            """)
        try user.text(
            """
            varve store init; varve unpack --image L:a --rootless bundle
            jq '.process.terminal = false' bundle/config.json > c; cat c > bundle/config.json
            """)
        let result = try user.run(
            "set -- bundle \"$PWD/state\"; exec \(runtime.words)", wrapper: "exec \(ContainerRuntime.host)")
        #expect(
            result.status == 0 && result.outputText.hasPrefix("0\ntotal 0\n-rw-r--r-- 1 0 0 0 "),
            "\(result.status) \(result.outputText) \(result.errorText)")
        // Besides, runtimes make the empty file that /etc/resolv.conf is mounted on.
        let changes = try user.text("varve diff bundle")
        #expect(changes.hasSuffix("M srv\nA srv/x\n"), "\(changes)")
    }
}
