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

    /// - Parameter width: what is longer ends in `…`; nil for as long as it is.
    func text(width: Int?) -> String {
        let columns = rows.map(\.count).max() ?? 0
        let widths = (0..<columns).map { column in
            rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0
        }
        var text = ""
        for row in rows {
            var line = ""
            var pending = 0
            for (column, cell) in row.enumerated() {
                if !cell.isEmpty {
                    line += String(repeating: " ", count: pending) + cell
                    pending = 0
                }
                pending += widths[column] - cell.count + 1
            }
            if let width, line.count > width { line = line.prefix(width - 1) + "…" }
            text += line + "\n"
        }
        return text
    }
}
