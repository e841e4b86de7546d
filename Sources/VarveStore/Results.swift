import VarveFormats
import VarveOCI
import VarveSystem

// Results as they are printed.

extension Unpacking.Result: CustomStringConvertible {
    public var description: String { "\(layers) layers, \(layersInPlace) of them in place already" }
}

extension Repacking.Result: CustomStringConvertible {
    public var description: String {
        guard let layer else { return "nothing changed; the manifest is \(manifest.digest)" }
        return
            "\(changes) \(changes == 1 ? "change" : "changes"), layer \(layer.digest) of \(layer.size) bytes; the manifest is \(manifest.digest)"
    }
}

extension NamedSnapshot: CustomStringConvertible {
    public var description: String {
        "\(BytePath.escape(Array(name.utf8))) of \(RFC3339.format(created))"
            + (chain.map { ", from \($0)" } ?? "")
    }
}

extension ChainUsage: CustomStringConvertible {
    public var description: String { "\(name): \(referenced) bytes, \(exclusive) of them its own" }
}

extension GarbageCollection.Report: CustomStringConvertible {
    public var description: String {
        let what = "\(chains.count) \(chains.count == 1 ? "chain" : "chains"), \(kept) kept"
        guard isDryRun else { return "deleted " + what }
        return "would delete \(what)" + (exclusiveBytes.map { ", and free \($0) bytes" } ?? "")
    }
}

extension StoreCheck.Finding: CustomStringConvertible {
    public var description: String {
        let place = path.isEmpty ? "." : "\(path)"
        return ([place, problem] + [repair ?? remedy?.description].compactMap { $0 }).joined(separator: ": ")
    }
}
