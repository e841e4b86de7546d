import BtrfsSendStream
import TestSupport

extension FuzzTarget {
    /// Send streams. The first byte says in pieces of which length they come, and whether checksums are made right first.
    ///
    /// Commands or a `SendStreamError`, the same ones however the input is cut; bounded memory; and each command prints.
    package static let stream = FuzzTarget(
        name: "stream",
        seeds: {
            (1...3).flatMap { version in
                let everything = StreamBuilder.everything(version: UInt32(version))
                return [[0x80] + everything, [0x82] + everything + everything]
            }
        },
        run: { bytes in
            var input = FuzzInput(bytes)
            let choice = input.byte()
            var stream = input.all()
            if choice & 0x80 != 0 { mendStream(&stream) }
            let whole = parse(stream, piece: .max)
            let cut = parse(stream, piece: [4096, 100, 17, 1][Int(choice & 3)])
            try require(whole.commands == cut.commands, "other commands in pieces")
            try require(
                whole.error == cut.error,
                "\(String(describing: whole.error)) or \(String(describing: cut.error))")
            try require(whole.offset <= UInt64(stream.count), "it is at byte \(whole.offset)")
            return whole.error == nil ? .taken : .refused
        })
}

private func parse(_ stream: [UInt8], piece: Int) -> (
    commands: [String], error: SendStreamError?, offset: UInt64
) {
    var parser = SendStreamParser(bufferSize: 4096)
    var commands: [String] = []
    var rest = stream[...]
    do throws(SendStreamError) {
        while !rest.isEmpty {
            parser.feed(rest.prefix(piece))
            rest = rest.dropFirst(piece)
            while let command = try parser.next() {
                commands.append(SendStreamPrinter.text(command) + SendStreamPrinter.json(command))
            }
        }
        try parser.finish()
        return (commands, nil, parser.offset)
    } catch {
        // An error stays.
        guard (try? parser.next()) == nil else {
            return (commands + ["a command after an error"], nil, parser.offset)
        }
        return (commands, error, parser.offset)
    }
}

/// Writes the right checksum into every command that can be found by its length.
private func mendStream(_ stream: inout [UInt8]) {
    var start = 17
    while start + 10 <= stream.count {
        let length = (0..<4).reduce(0) { $0 | Int(stream[start + $1]) << ($1 * 8) }
        let end = start + 10 + length
        guard end <= stream.count else { return }
        stream.replaceSubrange((start + 6)..<(start + 10), with: [0, 0, 0, 0])
        stream.replaceSubrange(
            (start + 6)..<(start + 10), with: little(slowCRC32C(Array(stream[start..<end]))))
        // The next stream begins after an end.
        start = end + (stream[start + 4] == 21 && stream[start + 5] == 0 ? 17 : 0)
    }
}
