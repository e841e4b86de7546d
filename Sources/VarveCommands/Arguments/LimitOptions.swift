import ArgumentParser
import VarveStore

// How much an image may unpack to. Each command that has `--max-size` and `--max-entries` declares them itself: a group of
// options costs each start of the program 0.1 ms.

extension ArgumentHelp {
    static let bundleMode = ArgumentHelp(
        "Permissions of the bundle's directory, such as 755; 700 by default, as who can enter it can run the image's set-ID files.",
        valueName: "mode")
    static let maxSize = ArgumentHelp(
        "The most bytes that the layers may unpack to, holes of sparse files included; 1T by default.",
        valueName: "size")
    static let strictXattrs = ArgumentHelp(
        "Refuse an extended attribute that cannot be set here, instead of leaving it out with a warning.")
    static let maxEntries = ArgumentHelp(
        "The most entries that the layers may have; 10000000 by default.", valueName: "count")
}

extension UnpackLimits {
    init(maxSize: SizeArgument?, maxEntries: CountArgument?) {
        self.init()
        if let maxSize { size = maxSize.bytes }
        if let maxEntries { entries = maxEntries.count }
    }
}
