/// Hands on a stream as it is and shows it to an observer in passing, on the thread of the reader.
///
/// The reader gets the end of the stream only if `ByteObserver.finish` threw nothing: a blob whose digest is
/// wrong ends in an error.
@safe
package final class TappedSource: FillableSource {
    private let upstream: any FillableSource
    private let observer: any ByteObserver
    /// Nil while the stream goes on; then its end, the same at every further call.
    private var end: Result<Void, any Error>?

    package init(_ upstream: any ByteSource, observer: any ByteObserver) {
        self.upstream = CopyingSource.adapting(upstream)
        self.observer = observer
    }

    package convenience init(
        _ upstream: any ByteSource, tap: @escaping (UnsafeRawBufferPointer) -> Void,
        atEnd: @escaping () throws -> Void = {}
    ) {
        unsafe self.init(upstream, observer: ClosureObserver(tap, atEnd: atEnd))
    }

    package func next() throws -> UnsafeRawBufferPointer {
        if let end {
            try end.get()
            return unsafe UnsafeRawBufferPointer(start: nil, count: 0)
        }
        let run = try unsafe upstream.next()
        try unsafe show(run)
        return unsafe run
    }

    package func fill(_ buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        if let end {
            try end.get()
            return 0
        }
        let count = try unsafe upstream.fill(buffer)
        try unsafe show(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        return count
    }

    private func show(_ run: UnsafeRawBufferPointer) throws {
        if unsafe !run.isEmpty { return unsafe observer.observe(run) }
        let result = Result { try observer.finish() }
        end = result
        try result.get()
    }
}

/// Hands on what is written and shows it to an observer in passing.
@safe
package final class TappedSink: ByteSink {
    private let downstream: any ByteSink
    private let observer: any ByteObserver
    private var finished = false

    package init(_ downstream: any ByteSink, observer: any ByteObserver) {
        self.downstream = downstream
        self.observer = observer
    }

    package convenience init(
        _ downstream: any ByteSink, tap: @escaping (UnsafeRawBufferPointer) -> Void,
        atEnd: @escaping () throws -> Void = {}
    ) {
        unsafe self.init(downstream, observer: ClosureObserver(tap, atEnd: atEnd))
    }

    package func write(_ bytes: UnsafeRawBufferPointer) throws {
        unsafe observer.observe(bytes)
        try unsafe downstream.write(bytes)
    }

    /// Finishes the observer, then downstream.
    package func finish() throws {
        if finished { return }
        finished = true
        try observer.finish()
        try downstream.finish()
    }
}
