import VarveSystem
package import SystemPackage

extension Change {
    /// Everything in a tree as added, the root itself first: what a layer that holds all of it is packed from.
    ///
    /// - Parameter onEntry: called before each directory; throws to stop.
    package static func wholeTree(_ root: FileDescriptor, onEntry: () throws -> Void = {}) throws -> [Change]
    {
        var changes = [Change(kind: .added, path: .current, type: .directory)]
        var pending: [BytePath] = [.current]
        while let path = pending.popLast() {
            try onEntry()
            let entries = try attempt("list the directory", path) { () throws(Errno) in
                let opened = try root.openBelow(path, [.directory])
                return try opened.fd.entries()
            }
            for entry in entries {
                let name = path == .current ? entry.name : path.appending(entry.name)
                var type = entry.type
                if type == nil {
                    type = try attempt("look at", name) { () throws(Errno) in
                        let opened = try root.openBelow(name, [.path, .noFollow])
                        return try opened.fd.status().type
                    }
                }
                guard let type else { continue }
                changes.append(Change(kind: .added, path: name, type: type))
                guard type == .directory else { continue }
                if name.count > LayerPacker.pathLimit { throw LayerPacker.tooLong(name, in: name.count) }
                pending.append(name)
            }
        }
        return changes
    }
}
