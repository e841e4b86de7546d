import VarveSystem
import SystemPackage
import TestSupport
import Testing

@Suite struct InstallTests {
    private func script(_ name: String, _ arguments: String...) throws -> CommandResult {
        try runCommand([repositoryFile("Scripts/\(name)")] + arguments)
    }

    @Test func installAndUninstall() throws {
        let directory = try TemporaryDirectory()
        let prefix = "\(directory.path)/prefix"
        let binary = try builtProgram("varve")
        // What was there before stays, empty directories included.
        try shell(
            "mkdir -p \"$1/prefix/bin\" \"$1/prefix/share/man/man1\"; touch \"$1/prefix/share/man/man1/other.1\"",
            directory.path)
        func tree() throws -> String {
            try runSuccessfully(["sh", "-c", "cd '\(prefix)'; find . | sort"]).outputText
        }
        let before = try tree()

        for _ in 1...2 {
            let installed = try script("install", "--prefix", prefix, "--binary", binary)
            #expect(installed.status == 0 && installed.output.isEmpty, "\(installed.errorText)")
        }
        let after = try tree()
        for file in [
            "bin/varve", "share/bash-completion/completions/varve", "share/zsh/site-functions/_varve",
            "share/fish/vendor_completions.d/varve.fish", "share/man/man1/varve.1",
            "share/man/man1/varve-unpack.1",
        ] {
            #expect(after.contains("\n./\(file)\n"), "\(file)")
        }
        #expect(try runSuccessfully(["\(prefix)/bin/varve", "--version"]).outputText.hasPrefix("varve "))
        try completes(prefix)
        try describes(prefix)

        let removed = try script("uninstall", "--prefix", prefix)
        #expect(removed.status == 0, "\(removed.errorText)")
        #expect(try tree() == before)
        let again = try script("uninstall", "--prefix", prefix)
        #expect(
            again.status == 1 && again.errorText.contains("nothing of Varve is installed below \"\(prefix)\"")
        )

        // Somebody else's file ends it before anything is done.
        try shell("touch \"$1/prefix/bin/varve\"", directory.path)
        let refused = try script("install", "--prefix", prefix, "--binary", binary)
        #expect(
            refused.status == 1
                && refused.errorText.contains("\"\(prefix)/bin/varve\" is there already, and not from here"))
        #expect(try tree() == before.replacing("./bin\n", with: "./bin\n./bin/varve\n"))

        // A prefix that was not there goes again.
        for name in ["install", "uninstall"] {
            let arguments = name == "install" ? ["--binary", binary] : []
            _ = try runSuccessfully(
                [repositoryFile("Scripts/\(name)"), "--prefix", "\(prefix)2"] + arguments)
        }
        #expect(try FileDescriptor.workingDirectory.statusIfPresent(of: BytePath("\(prefix)2")) == nil)
        #expect(try script("install", "--prefix", "relative").status == 2)
    }

    /// Each shell takes its script. What it finds by it Scripts/completion-test tries, at a terminal.
    private func completes(_ prefix: String) throws {
        let folders = [
            "bash": "bash-completion/completions/varve", "zsh": "zsh/site-functions/_varve",
            "fish": "fish/vendor_completions.d/varve.fish",
        ]
        for (shell, path) in folders {
            let file = "\(prefix)/share/\(path)"
            try runSuccessfully(["env", "HOME=/nonexistent", shell, "-n", file])
            let printed = try runSuccessfully(["\(prefix)/bin/varve", "--generate-completion-script", shell])
            #expect(
                try printed.output == FileDescriptor.workingDirectory.readFile(BytePath(file), limit: 1 << 20)
            )
        }
        let wrong = try runCommand(["\(prefix)/bin/varve", "--generate-completion-script", "csh"])
        #expect(wrong.status == 2 && wrong.errorText.contains("csh"), "\(wrong.errorText)")
    }

    /// Every command has a page, and every page is one.
    private func describes(_ prefix: String) throws {
        let pages = "\(prefix)/share/man/man1"
        let help = try runSuccessfully(["\(prefix)/bin/varve", "--help"]).outputText
        for command in ["unpack", "repack", "diff", "store", "snapshot", "stat"] {
            #expect(help.contains("  \(command) "))
            let page = try runSuccessfully(["mandoc", "-T", "utf8", "\(pages)/varve-\(command).1"]).outputText
            #expect(page.contains("VARVE-\(command.uppercased())(1)"))
        }
        // Not a missing date, which would make two builds differ.
        let lint = try runSuccessfully([
            "sh", "-c", "mandoc -T lint -W warning '\(pages)'/varve*.1 | grep -v 'missing date' || :",
        ]).outputText
        #expect(lint == "")
        let plain = try runSuccessfully([
            "sh", "-c", "mandoc -T ascii '\(pages)/varve-unpack.1' | col -bx",
        ]).outputText
        #expect(plain.contains("varve unpack --image image"))
        #expect(plain.contains("--uid-map container:host:size"))
    }
}
