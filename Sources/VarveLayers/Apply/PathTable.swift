import Glibc
import VarveSystem

/// Paths of a tree, kept as places in a table of names: what many of them have in common is there once. A path costs its last name and
/// a few words, however deep it lies, and is found in the time that its own components take.
final class PathTable {
    /// A path of the table that gave it.
    struct Place: Hashable {
        fileprivate let number: Int
    }

    /// The empty path.
    static let root = Place(number: 0)

    /// By their numbers: the place of the directory, and where the name ends in `names`, behind that of the place before.
    private var places: [(directory: Int, end: Int)] = [(0, 0)]
    private var names: [UInt8] = []
    /// The numbers of places by the hash of directory and name, each in the next free slot; 0 is free.
    private var slots = [Int](repeating: 0, count: 16)
    /// The path that was put in last, and where each of its components ends in it. The next one has most of its way in common with it.
    private var last = BytePath.empty
    private var steps: [(end: Int, place: Place)] = []

    /// Bytes that the table takes.
    var size: Int {
        places.count * MemoryLayout<(Int, Int)>.stride + names.count + slots.count * MemoryLayout<Int>.stride
    }

    /// The place of `name` in a directory, made if it is missing.
    func insert(_ name: BytePath, in directory: Place) -> Place { insert(name.bytes, in: directory) }

    /// The place of a relative path without `.` and `..`, made if it is missing.
    func insert(_ path: BytePath) -> Place {
        var (shared, high) = (0, steps.count)
        while shared < high {
            let middle = (shared + high + 1) / 2
            if Self.isShared(steps[middle - 1].end, path, last) { shared = middle } else { high = middle - 1 }
        }
        steps.removeLast(steps.count - shared)
        for name in path.bytes[(steps.last?.end ?? 0)...].split(separator: UInt8(ascii: "/")) {
            steps.append((name.endIndex, insert(name, in: steps.last?.place ?? Self.root)))
        }
        last = path
        return steps.last?.place ?? Self.root
    }

    /// Whether both begin with the same bytes, `count` of them, after which a component ends in both.
    private static func isShared(_ count: Int, _ path: BytePath, _ last: BytePath) -> Bool {
        guard count <= path.count, count == path.count || path.bytes[count] == UInt8(ascii: "/") else {
            return false
        }
        return unsafe path.bytes.withUnsafeBytes { a in
            unsafe last.bytes.withUnsafeBytes { b in
                guard let x = a.baseAddress, let y = b.baseAddress, count <= b.count else { return false }
                return unsafe memcmp(x, y, count) == 0
            }
        }
    }

    /// The place of a path that is given by its components, made if it is missing.
    func insert(_ components: [BytePath]) -> Place {
        components.reduce(Self.root) { insert($1.bytes, in: $0) }
    }

    /// The place of `name` in a directory; nil if it was never put in.
    func find(_ name: BytePath, in directory: Place) -> Place? {
        let number = slots[slot(of: name.bytes, in: directory.number)]
        return number == 0 ? nil : Place(number: number)
    }

    /// The components of the path.
    func components(of place: Place) -> [BytePath] {
        var result: [BytePath] = []
        var number = place.number
        while number != 0 {
            // Names come from paths, so none has a NUL.
            if let name = BytePath(name(number)) { result.append(name) }
            number = places[number].directory
        }
        return result.reversed()
    }

    func path(of place: Place) -> BytePath { BytePath(joining: components(of: place)) }

    private func insert(_ name: ArraySlice<UInt8>, in directory: Place) -> Place {
        let found = slot(of: name, in: directory.number)
        if slots[found] != 0 { return Place(number: slots[found]) }
        names.append(contentsOf: name)
        places.append((directory.number, names.count))
        slots[found] = places.count - 1
        // Half of the slots stay free.
        if places.count * 2 > slots.count { grow() }
        return Place(number: places.count - 1)
    }

    private func name(_ number: Int) -> ArraySlice<UInt8> {
        names[places[number - 1].end..<places[number].end]
    }

    /// Where the place is, or is to be.
    private func slot(of name: ArraySlice<UInt8>, in directory: Int) -> Int {
        // The keys of the hash are drawn anew in each process: no archive can make names collide.
        var hasher = Hasher()
        hasher.combine(directory)
        unsafe name.withUnsafeBytes { unsafe hasher.combine(bytes: $0) }
        var slot = hasher.finalize() & (slots.count - 1)
        while slots[slot] != 0 {
            let number = slots[slot]
            if places[number].directory == directory, self.name(number) == name { break }
            slot = (slot + 1) & (slots.count - 1)
        }
        return slot
    }

    private func grow() {
        slots = [Int](repeating: 0, count: slots.count * 2)
        for number in 1..<places.count {
            slots[slot(of: name(number), in: places[number].directory)] = number
        }
    }
}

/// A set of paths in a `PathTable` of its own. What is taken out still takes its room in the table.
struct PathSet {
    private let table = PathTable()
    private var members: Set<PathTable.Place> = []

    var isEmpty: Bool { members.isEmpty }

    mutating func insert(_ components: [BytePath]) { members.insert(table.insert(components)) }

    mutating func remove(_ name: BytePath, in directory: [BytePath]) {
        if members.isEmpty { return }
        guard let parent = find(directory), let place = table.find(name, in: parent) else { return }
        members.remove(place)
    }

    func contains(_ components: [BytePath]) -> Bool {
        members.isEmpty ? false : find(components).map { members.contains($0) } ?? false
    }

    /// Whether the path or one that it lies below is a member.
    func contains(atOrAbove components: [BytePath]) -> Bool {
        if members.isEmpty { return false }
        var place = PathTable.root
        if members.contains(place) { return true }
        for name in components {
            guard let next = table.find(name, in: place) else { return false }
            if members.contains(next) { return true }
            place = next
        }
        return false
    }

    /// Calls `body` with the components of each member, in no order.
    func forEach<E: Error>(_ body: ([BytePath]) throws(E) -> Void) throws(E) {
        for place in members { try body(table.components(of: place)) }
    }

    private func find(_ components: [BytePath]) -> PathTable.Place? {
        var place = PathTable.root
        for name in components {
            guard let next = table.find(name, in: place) else { return nil }
            place = next
        }
        return place
    }
}
