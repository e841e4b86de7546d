public import SystemCalls
public import SystemPackage

/// Deletes the directory `name` in `directory` with everything in it, however deep. `path` is what messages call it.
public func removeWholeTree(_ name: BytePath, in directory: FileDescriptor, path: BytePath) throws(LayerError)
{
    let tree = try attempt("open the directory", path) { () throws(Errno) in
        try directory.openDirectory(name)
    }
    _ = try TreeRemoval.removeContents(of: tree.fd, path: path) { _, _ in false }
    try attempt("remove the directory", path) { () throws(Errno) in try directory.removeDirectory(name) }
}
