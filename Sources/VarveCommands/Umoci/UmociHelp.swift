/// What `umoci --help` and its like print.
enum UmociHelp {
    static var program: String {
        """
        umoci modifies Open Container images

        USAGE:
           umoci [--verbose] [--log debug|info|warn|error|fatal] COMMAND [FLAGS] [ARGUMENTS]

        COMMANDS:
        \(list(UmociVerb.all))
           \(column("raw"))advanced internal image tooling
           \(column("help, h"))shows a list of commands or help for one

        """
    }

    static var raw: String {
        """
        umoci raw: advanced internal image tooling

        USAGE:
           umoci raw COMMAND [FLAGS] [ARGUMENTS]

        COMMANDS:
        \(list(UmociVerb.raw))

        """
    }

    static func verb(_ verb: UmociVerb, below program: String) -> String {
        let arguments = verb.arguments.map { " <\($0)>" }.joined()
        let flags = verb.flags.map { flag in
            "   \(column("--\(flag.name)" + (flag.kind == .toggle ? "" : " value"), 28))\(flag.help)"
        }
        return """
            \(program) \(verb.names.joined(separator: ", ")): \(verb.abstract)

            USAGE:
               \(program) \(verb.names[0]) [FLAGS] --\(verb.mandatory) value\(arguments)

            FLAGS:
            \(flags.joined(separator: "\n"))

            """
    }

    private static func list(_ verbs: [UmociVerb]) -> String {
        verbs.filter { !$0.isHidden }.map { "   \(column($0.names.joined(separator: ", ")))\($0.abstract)" }
            .joined(separator: "\n")
    }

    private static func column(_ text: String, _ width: Int = 24) -> String {
        text + String(repeating: " ", count: max(1, width - text.count))
    }
}
