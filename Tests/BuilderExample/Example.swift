import Glibc
import SystemPackage
import Varve

/// The builder of Docs/examples/build/build.py over the library, with its stages side by side. It takes the same file.
///
///     builder-example FILE LAYOUT [STAGE…]
///
/// The store is `$VARVE_STORE` or `/var/lib/varve`. Run steps are run by `$VARVE run`, or `varve run`.
@main
struct Example {
    static func main() async {
        let words = CommandLine.arguments
        guard words.count >= 3 else { return fail("usage: builder-example FILE LAYOUT [STAGE…]") }
        do {
            let stages = try StageFile(reading: words[1])
            let builder = try await Builder(
                stages, layout: words[2], store: variable("VARVE_STORE") ?? "/var/lib/varve",
                varve: variable("VARVE") ?? "varve")
            try await builder.build(words.count > 3 ? Array(words[3...]) : stages.stages.map(\.name))
        } catch {
            fail("builder-example: \(error)")
        }
    }

    private static func variable(_ name: String) -> String? {
        unsafe getenv(name).map { unsafe String(cString: $0) }
    }

    private static func fail(_ sentence: String) {
        say(sentence, to: .standardError)
        exit(1)
    }
}

/// What ends a build, in one sentence.
struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
