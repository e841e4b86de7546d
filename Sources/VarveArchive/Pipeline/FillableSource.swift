/// A source that can write its bytes where its reader wants them, which saves the copy out of its own buffer.
///
/// `fill` and `next` read the same stream: what one has given, the other does not give again.
package protocol FillableSource: ByteSource {
    /// Fills `buffer` completely, unless the stream ends before; returns the bytes written, 0 only at the end
    /// (and on every call after it). `buffer` may not be empty.
    func fill(_ buffer: UnsafeMutableRawBufferPointer) throws -> Int
}

/// Makes any source fillable by copying its runs.
@safe
final class CopyingSource: FillableSource {
    private let upstream: any ByteSource
    /// What is left of the last run; valid because upstream is not asked again before it is used up.
    private var rest = unsafe UnsafeRawBufferPointer(start: nil, count: 0)

    init(_ upstream: any ByteSource) { self.upstream = upstream }

    /// `source` itself if it can fill a buffer.
    static func adapting(_ source: any ByteSource) -> any FillableSource {
        (source as? any FillableSource) ?? CopyingSource(source)
    }

    func next() throws -> UnsafeRawBufferPointer {
        if unsafe rest.isEmpty { return try unsafe upstream.next() }
        defer { unsafe rest = unsafe UnsafeRawBufferPointer(start: nil, count: 0) }
        return unsafe rest
    }

    func fill(_ buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        var filled = 0
        while filled < buffer.count {
            if unsafe rest.isEmpty {
                unsafe rest = try unsafe upstream.next()
                if unsafe rest.isEmpty { break }
            }
            let count = unsafe min(rest.count, buffer.count - filled)
            unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[filled..<(filled + count)])
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: rest[..<count]))
            unsafe rest = unsafe UnsafeRawBufferPointer(rebasing: rest[count...])
            filled += count
        }
        return filled
    }
}
