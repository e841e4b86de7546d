/// The compressed bytes that a decoder reads: the run in hand, and where it stands in the stream.
@safe
struct CompressedInput {
    private let upstream: any ByteSource
    private var run = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
    private var position = 0
    /// Bytes of the stream before `run`.
    private var before: UInt64 = 0
    /// The last bytes before `run`, the latest one last; ISA-L may have to give them back.
    private var tail: [UInt8] = []
    /// Bytes given back that lie before `run`; they are read first.
    private var returned: [UInt8] = []
    private static let tailLength = 8

    init(_ upstream: any ByteSource) { self.upstream = upstream }

    /// Bytes of the compressed stream read so far.
    var offset: UInt64 { before &+ UInt64(position) &- UInt64(returned.count) }

    /// The rest of the run in hand, empty when it is used up. Nothing may be given back at this point.
    var rest: UnsafeRawBufferPointer { unsafe UnsafeRawBufferPointer(rebasing: run[position...]) }

    /// Gets the next run, of which `rest` must all be used; false at the end.
    mutating func refill() throws -> Bool {
        // At the end the last bytes are still the last ones.
        if unsafe !run.isEmpty {
            tail = unsafe Array((tail + Array(run.suffix(Self.tailLength))).suffix(Self.tailLength))
        }
        unsafe before &+= UInt64(run.count)
        unsafe run = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
        position = 0
        unsafe run = try unsafe upstream.next()
        return unsafe !run.isEmpty
    }

    /// Goes on by so many bytes of `rest`, or back by up to 8, which `readByte` then gives again. False if
    /// that is not possible, which no decoder that works asks for.
    mutating func advance(by count: Int) -> Bool {
        let target = position + count
        if unsafe target > run.count { return false }
        if target < 0 {
            if -target > tail.count { return false }
            returned = Array(tail.suffix(-target))
        }
        position = max(0, target)
        return true
    }

    /// The next byte; nil at the end.
    mutating func readByte() throws -> UInt8? {
        if !returned.isEmpty { return returned.removeFirst() }
        if unsafe position == run.count {
            guard try refill() else { return nil }
        }
        defer { position += 1 }
        return unsafe run[position]
    }
}
