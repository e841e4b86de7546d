/// The commands of a send stream whose bytes come as an `AsyncSequence`, in pieces of any size.
///
/// ```swift
/// for try await command in SendCommands(pieces: body) { print(command) }
/// ```
///
/// Memory is bounded by the longest piece and the longest command. The sequence ends when the bytes have ended and the last
/// stream in them is complete. It throws ``SendStreamError`` if the stream is wrong, and what `Base` throws; cancelling is
/// left to `Base`.
public struct SendCommands<Base: AsyncSequence>: AsyncSequence where Base.Element: Collection<UInt8> {
    /// What the sequence holds.
    public typealias Element = SendCommand

    private let base: Base

    /// Reads pieces, each any collection of bytes: `[UInt8]`, a `ByteBuffer`'s view, `Data`. A piece may be empty.
    public init(pieces base: Base) { self.base = base }

    /// Reads single bytes. Pieces are many times faster: use them where the source has both.
    public init<Bytes>(bytes: Bytes)
    where Bytes.Element == UInt8, Base == AsyncMapSequence<Bytes, CollectionOfOne<UInt8>> {
        base = bytes.map { CollectionOfOne($0) }
    }

    /// Starts to read.
    public func makeAsyncIterator() -> Iterator { Iterator(base.makeAsyncIterator()) }

    /// Reads one command after the other. Copies share their place in the stream.
    public struct Iterator: AsyncIteratorProtocol {
        /// An iterator can be copied, and a parser cannot.
        private final class State {
            var parser = SendStreamParser()
            var isAtEnd = false
        }

        private var base: Base.AsyncIterator
        private let state = State()

        fileprivate init(_ base: Base.AsyncIterator) { self.base = base }

        /// The next command; nil at the end. After a ``SendStreamError`` every further call throws the same error.
        public mutating func next() async throws -> SendCommand? {
            while true {
                if let command = try state.parser.next() { return command }
                if !state.isAtEnd {
                    if let piece = try await base.next() {
                        state.parser.feed(piece)
                        continue
                    }
                    state.isAtEnd = true
                }
                try state.parser.finish()
                return nil
            }
        }
    }
}
