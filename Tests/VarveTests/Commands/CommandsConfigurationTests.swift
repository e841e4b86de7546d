import VarveSystem
import Testing

@testable import VarveCommands

@Suite struct CommandsConfigurationTests {
    struct Case: CustomStringConvertible {
        var text: String
        var store: BytePath?
        var wrong: String?
        var description: String { text }
        init(_ text: String, store: BytePath? = nil, wrong: String? = nil) {
            self.text = text
            self.store = store
            self.wrong = wrong
        }
    }

    @Test(arguments: [
        Case("", store: nil),
        Case("# nothing\n\n", store: nil),
        Case("store = \"/srv/varve\"\n", store: "/srv/varve"),
        // No blanks, blanks at either end, a comment behind it, no newline at the end, a file from Windows.
        Case("store=\"/s\"", store: "/s"),
        Case("  store\t=  \"/s # 1\"  # comment\r\n", store: "/s # 1"),
        // A literal string takes a backslash as it is, a basic one escapes with it.
        Case(#"store = '/a\b'"#, store: #"/a\b"#),
        Case(#"store = "/a\\\"b""#, store: #"/a\"b"#),
        Case("store = /srv", wrong: "line 1 of \"c\" is wrong: the value is not a string in quotes"),
        Case("store = 7", wrong: "line 1 of \"c\" is wrong: the value is not a string in quotes"),
        Case("\nstore = \"/srv", wrong: "line 2 of \"c\" is wrong: a string does not end on its line"),
        Case(#"store = "/a\q""#, wrong: "an unknown escape in a string"),
        Case("store = \"/a\" x", wrong: "there is something behind the value"),
        Case("store = \"a/b\"", wrong: "the store must be an absolute path"),
        Case("store = \"/a\"\nstore = \"/b\"", wrong: "line 2 of \"c\" is wrong: \"store\" is set twice"),
        // A key that is spelled wrong must not make another store be used.
        Case("stor = \"/a\"", wrong: "the key \"stor\" is not known"),
        Case("[gc]\nolder-than = \"7d\"\nfree = \"2G\"\nkeep-images = [\"/l:a\"]\n", store: nil),
        Case("gc = 1", wrong: "gc is no table"),
        Case(
            "[gc]\nolder-than = 7", wrong: "line 2 of \"c\" is wrong: the value of older-than is not a string"
        ),
        Case("[gc]\nolder-than = \"7\"", wrong: "\"7\" is no age, such as \"7d\""),
        Case("[gc]\nfree = \"much\"", wrong: "\"much\" is no size"),
        Case("[gc]\nkeep-images = \"/l:a\"", wrong: "the value of keep-images is no array"),
        Case("[gc]\nkeep-images = [\"l:a\"]", wrong: "an image to keep must be an absolute path"),
        Case("[gc]\nolder = \"7d\"", wrong: "the key \"older\" is not known"),
        Case("[store]", wrong: "the value is not a string in quotes"),
        Case("store", wrong: "it is not key = value"),
    ])
    func parse(_ test: Case) throws {
        do {
            let configuration = try ConfigurationFile(parsing: Array(test.text.utf8), of: "c")
            #expect(test.wrong == nil)
            #expect(configuration.store == test.store)
        } catch {
            let wrong = try #require(test.wrong, "\(error)")
            #expect(error.reason.contains(wrong), "\(error)")
            #expect(error.remedy == "write for example: store = \"/srv/varve\"")
        }
    }

    /// `--store`, else `$VARVE_STORE`, else the file, else /var/lib/varve.
    @Test func location() throws {
        let home = try TemporaryDirectory()
        try shell(
            "mkdir -p \"$1/.config/varve\" \"$1/xdg/varve\"; echo 'store = \"/from-home\"' > \"$1/.config/varve/config.toml\"; echo 'store = \"/from-xdg\"' > \"$1/xdg/varve/config.toml\"",
            home.path)
        func find(_ option: BytePath?, _ variables: [String: String]) throws -> BytePath {
            try StoreLocation.find(option: option, bundles: [], environment: CommandEnvironment(variables))
                .path
        }
        let variables = ["VARVE_STORE": "/from-variable", "HOME": "\(home.path)"]
        #expect(try find("/from-option", variables) == "/from-option")
        #expect(try find(nil, variables) == "/from-variable")
        #expect(try find(nil, ["VARVE_STORE": "", "HOME": "\(home.path)"]) == "/from-home")
        #expect(try find(nil, ["HOME": "/nowhere", "XDG_CONFIG_HOME": "\(home.path)/xdg"]) == "/from-xdg")
        // A relative one is not valid (XDG Base Directory Specification).
        #expect(try find(nil, ["HOME": "\(home.path)", "XDG_CONFIG_HOME": "xdg"]) == "/from-home")
        // The host's file is asked where the user's says nothing.
        var environment = CommandEnvironment(["HOME": "/nowhere"])
        environment.hostConfiguration = home.path.appending("xdg/varve/config.toml")
        #expect(
            try StoreLocation.find(option: nil, bundles: [], environment: environment).path == "/from-xdg")
        environment = CommandEnvironment(["HOME": "\(home.path)"])
        environment.hostConfiguration = home.path.appending("xdg/varve/config.toml")
        #expect(
            try StoreLocation.find(option: nil, bundles: [], environment: environment).path == "/from-home")
        #expect(try find(nil, ["HOME": "/nowhere"]) == "/var/lib/varve")
        #expect(try find(nil, [:]) == "/var/lib/varve")
    }

    @Test func wrongFile() throws {
        let home = try TemporaryDirectory()
        try shell("mkdir \"$1/varve\"; echo 'stor = \"/a\"' > \"$1/varve/config.toml\"", home.path)
        let run = varve("store", "ls", variables: ["XDG_CONFIG_HOME": "\(home.path)"])
        #expect(run.code == 2)
        #expect(
            run.errorText.hasPrefix(
                "varve: line 1 of \"\(home.path)/varve/config.toml\" is wrong: the key \"stor\" is not known")
        )
    }
}
