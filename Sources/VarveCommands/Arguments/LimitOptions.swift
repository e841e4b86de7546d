import ArgumentParser
import Store

/// How much an image may unpack to.
struct LimitOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The most bytes that the layers may unpack to, holes of sparse files included; 1T by default.",
            valueName: "size"))
    var maxSize: SizeArgument?

    @Option(
        help: ArgumentHelp(
            "The most entries that the layers may have; 10000000 by default.", valueName: "count"))
    var maxEntries: Int?

    func validate() throws {
        if let maxEntries, maxEntries < 0 {
            throw ValidationError("--max-entries cannot be less than 0.")
        }
    }

    var limits: UnpackLimits {
        var result = UnpackLimits()
        if let maxSize { result.size = maxSize.bytes }
        if let maxEntries { result.entries = maxEntries }
        return result
    }
}
