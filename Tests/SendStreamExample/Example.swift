import BtrfsSendStream

/// The program of Docs/send-stream.md: what is in the send stream on standard input.
@main
struct Example {
    static func main() throws {
        var stream = SendStreamReader(fileDescriptor: 0)
        var commands: [String: Int] = [:]
        var contents: [SendCompression: Int] = [:]
        while let command = try stream.next() {
            commands[command.name, default: 0] += 1
            switch command {
            case .snapshot(let path, let uuid, _, let parent, _):
                print(
                    "\(String(decoding: path, as: UTF8.self)) (\(uuid)) is sent as the difference to \(parent)"
                )
            case .write(_, _, let data):
                contents[.none, default: 0] += data.count
            case .encodedWrite(_, _, _, _, _, let compression, _, let data):
                contents[compression, default: 0] += data.count
            default: break
            }
        }
        for (name, count) in commands.sorted(by: { $0.key < $1.key }) { print("\(name): \(count)") }
        for (compression, count) in contents.sorted(by: { $0.key.number < $1.key.number }) {
            print("contents, compression \(compression): \(count) bytes")
        }
    }
}
