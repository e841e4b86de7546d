import VarveSystem

/// Columns side by side, each as wide as its widest cell and one space; control bytes are escaped.
struct Table {
    private var rows: [[String]]

    init(_ header: [String]) { rows = [header] }

    mutating func append(_ cells: [String]) { rows.append(cells.map { BytePath.escape(Array($0.utf8)) }) }

    /// Columns of a terminal that a table fits where nothing is to be left out of it.
    static let width = 80

    /// With a newline at the end of each row and no blanks before it.
    var text: String { text(width: nil) }

    /// What a column keeps at least when a table is cut.
    private static let leastColumn = 8

    /// - Parameter width: of a table that is wider, the cells of the widest columns are cut, and end in `…`: no long name hides what stands
    ///   behind it. Nil for as wide as it is.
    func text(width: Int?) -> String {
        let columns = rows.map(\.count).max() ?? 0
        var widths = (0..<columns).map { column in
            rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0
        }
        if let width {
            var excess = widths.reduce(0, +) + columns - 1 - width
            while excess > 0, let widest = widths.indices.max(by: { widths[$0] < widths[$1] }),
                widths[widest] > Self.leastColumn
            {
                widths[widest] -= 1
                excess -= 1
            }
        }
        var text = ""
        for row in rows {
            var line = ""
            var pending = 0
            for (column, whole) in row.enumerated() {
                // The name at the end of a path says more than where it lies.
                let isLongPath = whole.hasPrefix("/") && whole.count > widths[column]
                let cell =
                    isLongPath
                    ? "…" + whole.suffix(widths[column] - 1) : Self.cut(whole, to: widths[column])
                if !cell.isEmpty {
                    line += String(repeating: " ", count: pending) + cell
                    pending = 0
                }
                pending += widths[column] - cell.count + 1
            }
            text += (width.map { Self.cut(line, to: $0) } ?? line) + "\n"
        }
        return text
    }

    /// A line, or a part of one, that ends in `…` where it is longer.
    static func cut(_ line: String, to width: Int) -> String {
        line.count > width ? line.prefix(width - 1) + "…" : line
    }
}
