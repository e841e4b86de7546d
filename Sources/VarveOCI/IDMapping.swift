package import VarveFormats

/// A range of ids in the container and where it lies on the host (runtime-spec config-linux.md, "User namespace
/// mappings").
public struct IDMapping: Hashable, Sendable {
    /// The first id in the image.
    package var containerID: UInt32
    /// The first id on the host.
    package var hostID: UInt32
    /// How many ids there are, at least one.
    package var size: UInt32

    /// Maps `size` ids, one after the other.
    public init(containerID: UInt32, hostID: UInt32, size: UInt32) {
        self.containerID = containerID
        self.hostID = hostID
        self.size = size
    }

    /// `CONTAINER:HOST[:SIZE]`, as umoci's `--uid-map` takes it; the size is 1 unless it is given. Nil for anything else,
    /// and for a range that is empty or goes beyond the highest id.
    package init?(parsing text: String) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2 || parts.count == 3, let container = Self.number(parts[0]),
            let host = Self.number(parts[1]), let size = parts.count == 3 ? Self.number(parts[2]) : 1
        else { return nil }
        self.init(containerID: container, hostID: host, size: size)
        guard isValid else { return nil }
    }

    /// As runtime-spec and umoci.json write it. Nil for anything else.
    package init?(_ json: JSONValue) {
        guard let object = json.object,
            let container = object["containerID"]?.int64.flatMap({ UInt32(exactly: $0) }),
            let host = object["hostID"]?.int64.flatMap({ UInt32(exactly: $0) }),
            let size = object["size"]?.int64.flatMap({ UInt32(exactly: $0) })
        else { return nil }
        self.init(containerID: container, hostID: host, size: size)
        guard isValid else { return nil }
    }

    package var json: JSONValue {
        [
            "containerID": .number(JSONNumber(containerID)), "hostID": .number(JSONNumber(hostID)),
            "size": .number(JSONNumber(size)),
        ]
    }

    /// 4294967295 is no id (chown(2) takes it for "leave it").
    private var isValid: Bool {
        size > 0 && UInt64(containerID) + UInt64(size) <= UInt64(UInt32.max)
            && UInt64(hostID) + UInt64(size) <= UInt64(UInt32.max)
    }

    private static func number(_ text: Substring) -> UInt32? {
        guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return UInt32(text)
    }
}

/// The ranges of a map, sorted, so that an id is found by halves. Where ranges overlap, the one that was given first counts.
package struct IDMap: Hashable, Sendable {
    /// How many ranges the kernel takes for a user name space (`UID_GID_MAP_MAX_EXTENTS`, include/linux/user_namespace.h).
    package static let limit = 340

    /// How many ranges there are. With more than `limit` no id is found.
    package let count: Int
    private let byContainer: [Segment]
    private let byHost: [Segment]

    /// Ids of one side, from the first to the last, and what the first is on the other side.
    private struct Segment: Hashable, Sendable {
        var first: UInt32
        var last: UInt32
        var target: UInt32
    }

    package init(_ ranges: [IDMapping]) {
        count = ranges.count
        let taken = ranges.count > Self.limit ? [] : ranges.filter { $0.size > 0 }
        byContainer = Self.segments(taken.map { ($0.containerID, $0.hostID, $0.size) })
        byHost = Self.segments(taken.map { ($0.hostID, $0.containerID, $0.size) })
    }

    /// The id on the host; nil if no range has it. Without ranges every id stands for itself.
    package func host(_ id: UInt32) -> UInt32? { count == 0 ? id : Self.find(id, byContainer) }

    /// The id in the container; nil if no range has it.
    package func container(_ id: UInt32) -> UInt32? { count == 0 ? id : Self.find(id, byHost) }

    /// Of each range, what no earlier one has, in ascending order.
    private static func segments(_ ranges: [(first: UInt32, target: UInt32, size: UInt32)]) -> [Segment] {
        var result: [Segment] = []
        for range in ranges {
            // 4294967295 is no id, and what lies behind it even less.
            let end = min(UInt64(range.first) + UInt64(range.size), UInt64(UInt32.max))
            var next = UInt64(range.first)
            var place = result.partitioningIndex { UInt64($0.last) >= next }
            while next < end {
                let isFree = place == result.count || UInt64(result[place].first) > next
                if isFree {
                    let gap = place == result.count ? end : min(end, UInt64(result[place].first))
                    let target = UInt64(range.target) + (next - UInt64(range.first))
                    result.insert(
                        Segment(
                            first: UInt32(truncatingIfNeeded: next),
                            last: UInt32(truncatingIfNeeded: gap - 1),
                            target: UInt32(truncatingIfNeeded: target)), at: place)
                }
                next = UInt64(result[place].last) + 1
                place += 1
            }
        }
        return result
    }

    private static func find(_ id: UInt32, _ segments: [Segment]) -> UInt32? {
        let place = segments.partitioningIndex { $0.last >= id }
        guard place < segments.count, segments[place].first <= id else { return nil }
        return segments[place].target &+ (id - segments[place].first)
    }
}

extension Array {
    /// The first index whose element fulfils `belongs`, which no element before it does and all behind it do; `count` if none does.
    fileprivate func partitioningIndex(where belongs: (Element) -> Bool) -> Int {
        var (low, high) = (0, count)
        while low < high {
            let middle = (low + high) / 2
            if belongs(self[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
