import Synchronization
import VarveSystem

/// What of a layer's metadata is not in the tree, because it cannot be; any thread may add to it.
final class LeftOut: Sendable {
    private struct State {
        var attributes = Sample()
        var accounts = Sample()
    }

    /// How many there are, and the first few names of them.
    private struct Sample {
        static let limit = 5
        var count = 0
        var names: [String] = []
        mutating func add(_ name: String) {
            count += 1
            if names.count <= Self.limit, !names.contains(name) { names.append(name) }
        }
        var examples: String {
            names.prefix(Self.limit).joined(separator: ", ") + (names.count > Self.limit ? ", …" : "")
        }
    }

    private let state = Mutex(State())

    /// An attribute that Linux or this file system does not take.
    func add(attribute name: BytePath) { state.withLock { $0.attributes.add(shownName(name)) } }

    /// An entry of an ACL for somebody whom the image does not have.
    func add(account name: String) {
        state.withLock { $0.accounts.add(shownName(BytePath(name))) }
    }

    /// A sentence for each kind of thing that was left out.
    var sentences: [String] {
        state.withLock { state in
            var result: [String] = []
            if state.attributes.count > 0 {
                result.append(
                    "\(Self.counted(state.attributes.count, "extended attribute is", "extended attributes are")) left out, which "
                        + "this file system cannot hold: \(state.attributes.examples); a strict unpack refuses such a layer"
                )
            }
            if state.accounts.count > 0 {
                result.append(
                    "\(Self.counted(state.accounts.count, "entry of an ACL is", "entries of ACLs are")) left out, for whom the "
                        + "image has no user or group: \(state.accounts.examples)")
            }
            return result
        }
    }

    private static func counted(_ count: Int, _ one: String, _ many: String) -> String {
        count == 1 ? "1 \(one)" : "\(count) \(many)"
    }
}

/// The name of an attribute or an account for a message: it may have megabytes, and does not decide how long a message is.
func shownName(_ name: BytePath) -> String {
    name.count <= 255 ? "\(name)" : BytePath.escape(name.bytes.prefix(80)) + "..."
}
