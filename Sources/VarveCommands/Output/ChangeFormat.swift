import VarveFormats
import VarveLayers
import VarveSystem

/// How `varve diff` writes changes.
enum ChangeFormat {
    /// `A path`, `M path`, `D path`, as a person may see them (`ShownText`).
    case text
    /// As `text`, but each change ends with NUL, and nothing is escaped.
    case terminated
    /// One array of objects, one object a line.
    case json

    /// Writes all changes, which are in the order that they are to be shown in.
    func write(_ changes: [Change], to output: ResultWriter) throws(OutputError) {
        switch self {
        case .text: for change in changes { try output.write { Self.appendText(change, to: &$0) } }
        case .terminated:
            for change in changes { try output.write { Self.appendTerminated(change, to: &$0) } }
        case .json: try writeJSON(changes, to: output)
        }
    }

    private func writeJSON(_ changes: [Change], to output: ResultWriter) throws(OutputError) {
        var isFirst = true
        try output.write("[")
        for change in changes {
            try output.write { buffer in
                buffer.append(contentsOf: (isFirst ? "\n" : ",\n").utf8)
                change.appendJSON(to: &buffer)
            }
            isFirst = false
        }
        try output.write(isFirst ? "]\n" : "\n]\n")
    }

    private static func appendText(_ change: Change, to buffer: inout [UInt8]) {
        buffer.append(contentsOf: change.kind.letter.utf8)
        buffer.append(UInt8(ascii: " "))
        ShownText.append(change.path.bytes, to: &buffer)
        buffer.append(UInt8(ascii: "\n"))
    }

    private static func appendTerminated(_ change: Change, to buffer: inout [UInt8]) {
        buffer.append(contentsOf: change.kind.letter.utf8)
        buffer.append(UInt8(ascii: " "))
        buffer.append(contentsOf: change.path.bytes)
        buffer.append(0)
    }
}
