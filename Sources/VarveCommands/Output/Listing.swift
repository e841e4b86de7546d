import VarveFormats
import VarveOCI
import VarveSystem

/// A listing in the three forms that every listing has.
struct Listing {
    struct Item {
        var name: String
        /// What the table shows, the name first.
        var cells: [String]
        var json: JSONObject
    }

    /// Nil: no header, as where there is nothing but names.
    var header: [String]?
    var items: [Item]
    /// What the table is cut to; nil for as long as it is.
    var width: Int?

    init(header: [String]?, items: [Item], width: Int? = nil) {
        self.header = header
        self.items = items
        self.width = width
    }

    func write(_ options: ListingOptions, to output: ResultWriter) throws(OutputError) {
        try write(options.format, isQuiet: options.quiet, to: output)
    }

    func write(_ format: ListingOptions.Format, isQuiet: Bool, to output: ResultWriter) throws(OutputError) {
        switch format {
        case .json:
            try output.write("[")
            for (index, item) in items.enumerated() {
                try output.write(index == 0 ? "\n" : ",\n")
                try output.write(JSONValue.object(item.json).serialized())
            }
            try output.write(items.isEmpty ? "]\n" : "\n]\n")
        case .table:
            guard let header, !isQuiet else {
                for item in items { try output.show(BytePath.escape(item.name.utf8) + "\n") }
                return
            }
            var table = Table(header)
            for item in items { table.append(item.cells) }
            try output.show(table.text(width: width))
        }
    }
}
