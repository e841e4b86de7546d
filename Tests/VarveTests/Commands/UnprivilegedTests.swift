import VarveSystem
import SystemPackage
import TestSupport
import Testing

/// A btrfs that belongs to a user with no privileges, and commands run as that user, in processes of their own.
struct OrdinaryUser: ~Copyable {
    /// Nobody's number on any host.
    static let id = 54_321
    let volume: LoopVolume

    init(options: String = "user_subvol_rm_allowed") throws {
        let made = try LoopVolume(size: 512 << 20, options: options)
        // Where the user may run it, and reach its own directory, whoever may enter those above.
        let copy = try builtProgram("varve")
        try runSuccessfully([
            "sh", "-ec",
            "cd '\(made.path)'; cp '\(copy)' varve; chmod 755 varve; chown \(Self.id):\(Self.id) .",
        ])
        volume = made
    }

    /// Runs a shell script as root in the user's directory.
    @discardableResult
    func asRoot(_ script: String) throws -> String {
        try runSuccessfully(["sh", "-ec", "cd '\(volume.path)'\n\(script)"]).outputText
    }

    /// What becomes of a shell script run as the user there; `varve` is the command, its store is `store`. The user sees
    /// the volume at a place of its own: a relative `cd` of a shell uses the whole path, which may lie below directories
    /// that the user may not search.
    func run(_ script: String, wrapper: String = "exec") throws -> CommandResult {
        let identity =
            "setpriv --reuid=\(Self.id) --regid=\(Self.id) --clear-groups --inh-caps=-all --no-new-privs"
        return try runCommand([
            "unshare", "--mount", "sh", "-ec",
            """
            mount --bind '\(volume.path)' /mnt; cd /mnt; export PATH=.:$PATH VARVE_STORE=store HOME=/nonexistent
            \(wrapper) \(identity) -- sh -ec "$1"
            """,
            "sh", script,
        ])
    }

    @discardableResult
    func text(_ script: String, sourceLocation: SourceLocation = #_sourceLocation) throws -> String {
        let result = try run(script)
        #expect(
            result.status == 0 && result.errorText == "", "\(script): \(result.status) \(result.errorText)",
            sourceLocation: sourceLocation)
        return result.outputText
    }

    /// An image with all that an ordinary user cannot make, or cannot read once it is made.
    func makeImage() throws {
        try asRoot(
            """
            umoci init --layout L; umoci new --image L:e; umoci unpack --image L:e b >/dev/null; cd b/rootfs
            mkdir -p dev etc home/bob locked unsearchable; echo root:x:0:0:root:/root:/bin/sh > etc/passwd
            mknod dev/null c 1 3; chmod 666 dev/null; mknod dev/sda b 8 0; mkfifo dev/pipe; chown 5:6 dev/pipe
            ln -s x link; chown -h 7:8 link; echo bob > home/bob/f; ln home/bob/f home/bob/g; chown -R 1000:1001 home/bob
            echo s > etc/shadow; chmod 0 etc/shadow; chown 0:42 etc/shadow; echo s > etc/ro; chmod 440 etc/ro
            echo x > locked/f; chmod 0555 locked; echo y > unsearchable/g; chmod 0600 unsearchable
            echo suid > su; chmod 4755 su; setcap cap_net_raw+ep su; setfattr -n user.a -v b etc/passwd
            setfattr -n trusted.x -v y etc/ro; touch -h -d @1600000000 $(find . -depth)
            cd ../..; umoci repack --image L:full b >/dev/null; umoci unpack --image L:full b2 >/dev/null; cd b2/rootfs
            echo z > locked/h; rm unsearchable/g; echo s2 > etc/shadow; touch -h -d @1600000001 $(find . -depth)
            cd ../..; umoci repack --image L:two b2 >/dev/null; rm -r b b2; chown -R \(Self.id):\(Self.id) L
            """)
    }
}

/// Type, mode, size of files, time, target and name of everything, and the attributes.
private let listing = """
    list() { (cd $1; find . ! -type d -printf '%y %m %s %T@ %l %p\\n' -o -printf '%y %m %T@ %p\\n' | sort -k 5; \
      getfattr -hRdm - . | sed 's/^# file: //'); }
    """

@Suite struct UnprivilegedTests {
    @Test("A blob that cannot be read keeps a collection from deleting what it may lead to")
    func unreadableBlob() throws {
        let user = try OrdinaryUser()
        try user.text(
            """
            varve store init store; varve init --layout M; mkdir -p M/blobs/sha256; cd M/blobs/sha256
            put() { d=$(sha256sum x | cut -c1-64); s=$(stat -c %s x); mv x $d; ln -s M/blobs/sha256/$d ../../../$1; }
            echo leaf > x; put leaf
            printf '{"blobs":[{"mediaType":"application/octet-stream","digest":"sha256:%s","size":%s}]}' $d $s > x; put document
            printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.own+json","digest":"sha256:%s","size":%s}]}' $d $s > ../../index.json
            """)
        try user.asRoot("chown 0:0 document; chmod 600 document")
        let refused = try user.run("varve gc --layout M")
        #expect(refused.status != 0 && refused.errorText.contains("Permission denied"), "\(refused)")
        try user.asRoot("chown \(OrdinaryUser.id) document")
        #expect(try user.text("varve gc --layout M; cat leaf") == "leaf\n")
    }

    /// In a user name space, which the command makes for itself, root and all other users read as one.
    @Test(
        "Without privileges too, no link of another user in a directory that all may write to leads to a place"
    )
    func linksOfOthers() throws {
        let user = try OrdinaryUser()
        let id = OrdinaryUser.id
        try user.asRoot(
            """
            chmod 711 .; mkdir open closed; chmod 1777 open; chown 0:0 open closed
            mkdir home; chown \(id):\(id) home; ln -s "$PWD/home" open/others; chown -h \(id + 1):\(id + 1) open/others
            ln -s ../home closed/roots; ln -s ../home open/own; chown -h \(id):\(id) open/own
            """)
        try user.text("varve init --layout home/L; varve new --image home/L:a")
        for command in [
            "varve unpack --rootless --driver directory",
            "unshare -r varve unpack --rootless --driver directory",
        ] {
            let refused = try user.run("\(command) --image home/L:a open/others/b")
            #expect(
                refused.status == 1 && refused.errorText.contains("symbolic link")
                    && refused.errorText.contains("open/others"), "\(command): \(refused.errorText)")
            #expect(try user.asRoot("ls home") == "L\n")
            try user.text(
                """
                \(command) --image home/L:a closed/roots/b; \(command) --image home/L:a open/own/c
                varve bundle rm home/b; varve bundle rm home/c
                """)
        }
    }

    /// Root of a user name space has no rights to what belongs to users whom that does not have; all of them show as one number.
    @Test("A directory of another user is seen before a bundle is removed, also by root of a user name space")
    func removalOfForeignDirectory() throws {
        let user = try OrdinaryUser()
        try user.text("varve init --layout L; varve new --image L:a")
        for command in ["varve", "unshare -r varve"] {
            try user.text("varve unpack --rootless --driver directory --image L:a b")
            try user.asRoot("cd b/rootfs; mkdir d; touch d/f a z; chown 65534 d; chmod 755 d")
            let refused = try user.run("\(command) bundle rm b")
            #expect(
                refused.status == 5 && refused.errorText.contains("belongs to another user"),
                "\(command): \(refused.errorText)")
            #expect(try user.asRoot("ls b b/rootfs/d; ls b/rootfs; rm -rf b").hasSuffix("f\na\nd\nz\n"))
        }
    }

    /// Images whose directories may not be entered, whose files may not be read and whose owners the user is not: the
    /// tree is umoci's, the delta exact, and what comes out of it has the owners that went in.
    @Test func wholeLife() throws {
        let user = try OrdinaryUser()
        try user.makeImage()
        try user.text("varve store init; varve unpack --image L:two --rootless ours")
        _ = try user.run("umoci unpack --image L:two --rootless theirs")
        // umoci loses the owner of what its owner may not write.
        let (ours, theirs) = (
            try user.asRoot(listing + "\nlist ours/rootfs"), try user.asRoot(listing + "\nlist theirs/rootfs")
        )
        #expect(
            ours.replacing("etc/shadow\nuser.rootlesscontainers=0sCP////8PECo=\n\n", with: "") == theirs)
        #expect(ours.contains("etc/shadow\nuser.rootlesscontainers=0sCP////8PECo=\n"))
        #expect(
            try user.asRoot("jq -c .map_options ours/umoci.json theirs/umoci.json | uniq | wc -l") == "1\n")
        #expect(try user.text("varve diff ours") == "")
        // It is known to descend from its chain, so files that bear old change times are not read.
        let why = try user.run("varve --log debug diff ours").errorText
        #expect(
            why
                == "varve: debug: delta source: walk, because the caller may not search the metadata (Operation not permitted)\n"
        )

        // The same edits in both, as the user that owns them.
        for bundle in ["ours", "theirs"] {
            try user.text(
                """
                cd \(bundle)/rootfs; echo new > etc/new; chmod u+w locked; echo 2 > locked/i; chmod u-w locked; rm su
                echo more >> home/bob/f; chmod u+rw etc/shadow; echo s3 > etc/shadow; chmod 0 etc/shadow
                setfattr -n user.rootlesscontainers -v 0sCP////8PECo= etc/new
                touch -d @1600000002 etc/new locked/i locked home/bob/f etc/shadow etc .
                """)
        }
        #expect(
            try user.text("varve diff ours")
                == "M .\nM etc\nA etc/new\nM etc/shadow\nM home/bob/f\nM home/bob/g\nM locked\nA locked/i\nD su\n"
        )
        try user.text("varve repack --image L:ours ours")
        _ = try user.run("umoci repack --image L:theirs theirs")
        // What root of the host sees in it.
        try user.asRoot("for t in ours theirs; do umoci unpack --image L:$t root-$t >/dev/null; done")
        let owners = try user.asRoot("cd root-ours/rootfs; find . -printf '%p %U:%G %m\\n' | sort")
        for line in [
            "./etc/new 0:42 644", "./etc/shadow 0:42 0", "./home/bob/g 1000:1001 644", "./dev/null 0:0 666",
            "./link 7:8 777", "./locked 0:0 555", "./locked/i 0:0 644", "./dev/pipe 5:6 644",
        ] {
            #expect(owners.contains(line + "\n"), "\(line) in \(owners)")
        }
        let everything =
            "list() { (cd $1; find . -printf '%y %m %U:%G %T@ %l %p\\n' | sort -k 6; getfattr -hRdm - .); }\n"
        let difference = try user.asRoot(
            everything + "list root-ours/rootfs > o; list root-theirs/rootfs > t; diff o t || :")
        // Here too.
        #expect(
            difference
                == "10c10\n< f 0 0:42 1600000002.0000000000  ./etc/shadow\n---\n> f 0 0:0 1600000002.0000000000  ./etc/shadow\n"
        )

        // The chain that repack published is what the bundle holds.
        try user.text("varve unpack --image L:ours --rootless again; varve diff ours again > difference")
        #expect(try user.asRoot("cat difference") == "")
        try user.text(
            "varve snapshot create ours kept; varve snapshot restore kept restored; varve snapshot rm kept")
        try user.text("for b in ours again restored; do varve bundle rm $b; done")
        try user.text("varve store ls -q | while read chain; do varve store rm $chain; done")
        #expect(try user.asRoot("find store -mindepth 2") == "")
    }

    /// Commands that need no store: the tree is umoci's, and what nobody may read goes into a layer all the same.
    @Test func withoutAStore() throws {
        let user = try OrdinaryUser()
        try user.makeImage()
        try user.text("export VARVE_STORE=/nowhere; varve raw unpack --image L:two --rootless ours")
        _ = try user.run("umoci raw unpack --image L:two --rootless theirs")
        let (ours, theirs) = (
            try user.asRoot(listing + "\nlist ours"), try user.asRoot(listing + "\nlist theirs")
        )
        #expect(
            ours.replacing("etc/shadow\nuser.rootlesscontainers=0sCP////8PECo=\n\n", with: "") == theirs)
        try user.text(
            """
            mkdir new; echo secret > new/f; setfattr -n user.rootlesscontainers -v 0sCOgHEOkH new/f; chmod 0 new/f new
            varve insert --image L:e --tag inserted --rootless new /new
            """)
        try user.asRoot("umoci unpack --image L:inserted inserted >/dev/null")
        #expect(
            try user.asRoot("cd inserted/rootfs; stat -c '%n %a %u:%g' new new/f; cat new/f")
                == "new 0 0:0\nnew/f 0 1000:1001\nsecret\n")
    }

    /// Maps for root of the host and rootless trees are other trees of the same layers: each has a chain of its own.
    @Test func variantsAreApart() throws {
        let user = try OrdinaryUser()
        try user.makeImage()
        let root = "export VARVE_STORE=\(user.volume.path)/rootstore PATH=.:$PATH; "
        try user.asRoot(
            root
                + """
                chown 0:0 .; varve store init
                varve unpack --image L:full plain; varve unpack --image L:full --rootless rootless
                varve unpack --image L:full --uid-map 0:100000:5000 --gid-map 0:200000:5000 mapped
                varve unpack --image L:full --uid-map 0:100000:5000 --uid-map 5000:7:1 --gid-map 0:200000:5000 other
                """)
        #expect(try user.asRoot("ls rootstore/chains | wc -l") == "4\n")
        let owners = try user.asRoot(
            "cd mapped/rootfs; stat -c '%n %u:%g' . etc/shadow home/bob/f link dev/pipe")
        #expect(
            owners
                == ". 100000:200000\netc/shadow 100000:200042\nhome/bob/f 101000:201001\nlink 100007:200008\ndev/pipe 100005:200006\n"
        )
        #expect(try user.asRoot(root + "for b in plain rootless mapped other; do varve diff $b; done") == "")
        // And back; umoci, which sees the map in umoci.json, gives the same owners.
        try user.asRoot(
            root
                + """
                cd mapped/rootfs; echo n > n; chown 100033:200034 n; mkdir d; chown 100001:200001 d; cd ../..
                varve repack --image L:mapped mapped; umoci unpack --image L:mapped check >/dev/null
                umoci unpack --image L:mapped --uid-map 0:100000:5000 --gid-map 0:200000:5000 checkmapped >/dev/null
                """)
        #expect(
            try user.asRoot("cd check/rootfs; stat -c '%n %u:%g' n d etc/shadow home")
                == "n 33:34\nd 1:1\netc/shadow 0:42\nhome 0:0\n")
        try user.asRoot(
            root + "varve unpack --image L:mapped --uid-map 0:100000:5000 --gid-map 0:200000:5000 mapped2")
        let everything =
            "list() { (cd $1; find . -printf '%y %m %U:%G %T@ %l %p\\n' | sort -k 6; getfattr -hRdm - .); }\n"
        #expect(
            try user.asRoot(everything + "list mapped2/rootfs")
                == user.asRoot(everything + "list checkmapped/rootfs"))
        #expect(
            try user.asRoot("jq -c '.map_options, .linux.uidMappings' mapped2/umoci.json mapped2/config.json")
                == """
                {"uid_mappings":[{"containerID":0,"hostID":100000,"size":5000}],"gid_mappings":[{"containerID":0,"hostID":200000,"size":5000}],"rootless":false}
                null
                null
                [{"containerID":0,"hostID":100000,"size":5000}]

                """)

        func fails(
            _ code: Int32, _ message: String, _ words: String,
            sourceLocation: SourceLocation = #_sourceLocation
        )
            throws
        {
            let result = try runCommand(["sh", "-c", "cd '\(user.volume.path)'; \(root) varve \(words)"])
            #expect(
                result.status == code && result.errorText.contains(message),
                "\(result.status) \(result.errorText)",
                sourceLocation: sourceLocation)
        }
        try fails(
            1, "belongs to the group 42, which the id map does not have; give one that has it with --gid-map",
            "unpack --image L:full --gid-map 0:0:10 small")
        try fails(
            1, "belongs to the user 0, which the id map does not have",
            "unpack --image L:full --uid-map 1:1:10 small")
        try user.asRoot("touch mapped/rootfs/stranger")
        try fails(
            1, "\"stranger\" belongs to the user 0 of the host, which the bundle's id map does not have",
            "repack --image L:x mapped")
        try fails(2, "'1:2:3:4'", "unpack --image L:full --uid-map 1:2:3:4 x")
        try fails(2, "--uid-map", "unpack --image L:full --uid-map 0:4294967295:1 x")
    }

    /// What an ordinary user is told.
    @Test func refusals() throws {
        let user = try OrdinaryUser()
        try user.makeImage()
        func fails(
            _ code: Int32, _ message: String, _ script: String,
            sourceLocation: SourceLocation = #_sourceLocation
        )
            throws
        {
            let result = try user.run(script)
            #expect(
                result.status == code && result.errorText.contains(message) && result.outputText == "",
                "\(result.status) \(result.errorText)", sourceLocation: sourceLocation)
        }
        try fails(5, "only root may mount", "varve store init --loopback 300M elsewhere")
        try user.text("varve store init")
        try fails(
            5, "run as root, or give --rootless", "varve unpack --image L:full x")
        try fails(
            5, "this needs CAP_SYS_ADMIN in the first user namespace",
            "varve unpack --rootless --image L:full x; varve diff --source stream x")
        // Whom an ACL names cannot be told without privileges, so a layer that would say it wrong is not made.
        try user.text("setfacl -m u:7:rw x/rootfs/etc/passwd")
        try fails(
            1,
            "\"etc/passwd\" cannot go into a layer: its ACL names users or groups, which a rootless bundle does not know; remove it with setfacl -b",
            "varve repack --image L:acl x")
        // A store of root's.
        try user.asRoot(
            "chown 0:0 .; VARVE_STORE=theirs ./varve store init; chown \(OrdinaryUser.id) .")
        try fails(
            5, "may be opened by its owner only; run as its owner, or name another with --store",
            "varve --store theirs store ls")
        try fails(5, "cannot make the directory \"/sys/x\"", "varve --store /sys/x store init")

        // What a process that was killed has left is cleaned away, read-only subvolumes too.
        try user.asRoot(
            """
            su() { setpriv --reuid=\(OrdinaryUser.id) --regid=\(OrdinaryUser.id) --clear-groups "$@"; }
            su btrfs -q subvolume snapshot -r x store/work/left; su btrfs -q subvolume snapshot x store/work/behind
            """)
        try user.text("varve store ls -q")
        #expect(try user.asRoot("ls store/work") == "")
    }

    /// A host that allows no user name spaces: what has all permissions for its owner goes as everywhere, and anything else
    /// is an error, not a tree that lacks something.
    @Test func noUserNamespaces() throws {
        let user = try OrdinaryUser()
        try user.makeImage()
        try user.asRoot(
            "umoci new --image L:easy; umoci unpack --image L:easy b >/dev/null; cd b/rootfs; mkdir etc; echo x > etc/f; chown 7:8 etc/f; chmod 444 etc/f; chown 3 etc; cd ../..; umoci repack --image L:easy b >/dev/null; rm -r b; chown -R \(OrdinaryUser.id):\(OrdinaryUser.id) L"
        )
        // A user name space in which there can be no other is as such a host.
        let script = """
            varve --log debug store init; varve --log debug unpack --rootless --image L:easy easy
            echo 1 > easy/rootfs/new; varve repack --image L:easy2 easy
            varve unpack --rootless --image L:full full
            """
        let result = try user.run(
            script,
            wrapper: """
                exec unshare --user sleep 60 & space=$!; until [ "$(readlink /proc/$space/exe)" = "$(command -v sleep)" ]; do sleep 0.02; done
                for map in uid gid; do echo 0 0 100000 > /proc/$space/${map}_map; done
                trap 'kill $space' EXIT
                nsenter --user --target $space --setuid 0 --setgid 0 sh -ec 'echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"' sh
                """)
        #expect(result.status == 5, "\(result)")
        #expect(result.errorText.contains("this host allows no user name space"), "\(result.errorText)")
        #expect(
            result.errorText.hasSuffix(
                "varve: cannot make \"locked/f\": Permission denied; run as root, or with --rootless on files of your own and a host that allows user name spaces\n"
            ), "\(result.errorText)")
        #expect(try user.asRoot("ls -A store/work; [ ! -e full ] && stat -c %a easy/rootfs/etc/f") == "444\n")
        try user.asRoot("umoci unpack --image L:easy2 out >/dev/null")
        #expect(
            try user.asRoot("stat -c '%u:%g' out/rootfs/etc/f out/rootfs/etc out/rootfs/new")
                == "7:8\n3:0\n0:0\n")
    }

    /// Without the mount option nothing could be taken away again, so nothing is begun.
    @Test func mountOption() throws {
        let user = try OrdinaryUser(options: "")
        let result = try user.run("varve store init")
        #expect(result.status == 5)
        #expect(
            result.errorText
                == "varve: only root may delete subvolumes on the btrfs of \"store\"; have it mounted with user_subvol_rm_allowed (mount -o remount,user_subvol_rm_allowed), or run as root\n"
        )
    }
}
