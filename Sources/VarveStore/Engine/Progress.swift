/// How far an operation is, for whoever shows it.
public enum Progress: Sendable {
    /// What an unpack has to do: layers that are there already, and layers and compressed bytes that are not.
    case planned(layersInPlace: Int, layers: Int, bytes: Int64)
    /// A layer begins, or waits for another process that is building it.
    case layer(index: Int, isWaiting: Bool)
    /// Compressed bytes of blobs read so far, of those planned.
    case read(bytes: Int64)
    /// Changes that a repack is to write.
    case changes(count: Int)
    /// Bytes of content written into the new layer so far.
    case written(bytes: Int64)
    /// Things that are done, of those to be done one after another: bundles, snapshots or chains that are deleted.
    case items(done: Int, count: Int)
}

/// Takes what a call tells of its progress. It is called from threads of the call, at most 20 times a second, and returns at once.
public typealias ProgressHandler = @Sendable (Progress) -> Void
