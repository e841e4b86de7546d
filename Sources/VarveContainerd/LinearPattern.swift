/// A regular expression that is matched in a time that grows with its length times that of the text, whatever they are: a client's
/// expression must not keep a thread busy for ever.
///
/// Of the expressions of Go's package `regexp` it takes: characters, `.`, classes with ranges, `\d \w \s` and their opposites,
/// groups, `|`, `* + ? {n} {n,} {n,m}`, `^` and `$` (of the whole text). It finds whether any part of a text matches.
package struct LinearPattern: Sendable {
    package struct Fault: Error, Hashable, CustomStringConvertible {
        package var description: String
    }

    private indirect enum Node {
        case empty, start, end
        case scalars(ScalarSet)
        case sequence([Node])
        case choice([Node])
        case `repeat`(Node, Int, Int?)
    }

    private struct ScalarSet {
        var ranges: [ClosedRange<UInt32>]
        var isInverted = false
        func contains(_ scalar: UInt32) -> Bool { ranges.contains { $0.contains(scalar) } != isInverted }
    }

    private enum Step {
        case scalars(ScalarSet, Int)
        case split([Int])
        case start(Int)
        case end(Int)
        case accept
    }

    /// More steps than this are refused: 1 KiB of an expression, repeated as often as Go allows.
    private static let limit = 20_000
    private var steps: [Step] = [.accept]
    private var first = 0
    /// Nodes looked at: those that add no step are repeated too.
    private var added = 0

    package init(_ text: String) throws(Fault) {
        var parser = Parser(Array(text.unicodeScalars))
        let node = try parser.choice(depth: 0)
        guard parser.isAtEnd else { throw Fault(description: "a parenthesis is closed that was not opened") }
        first = try add(node, then: 0)
    }

    /// Adds the steps of a node, the last first. Returns the first.
    private mutating func add(_ node: Node, then next: Int) throws(Fault) -> Int {
        added += 1
        guard steps.count < Self.limit, added < 10 * Self.limit else {
            throw Fault(description: "it is too long")
        }
        switch node {
        case .empty: return next
        case .start: return append(.start(next))
        case .end: return append(.end(next))
        case .scalars(let set): return append(.scalars(set, next))
        case .sequence(let nodes):
            var current = next
            for node in nodes.reversed() { current = try add(node, then: current) }
            return current
        case .choice(let nodes):
            var starts: [Int] = []
            for node in nodes { starts.append(try add(node, then: next)) }
            return append(.split(starts))
        case .repeat(let node, let least, let most):
            var current = next
            if let most {
                for _ in 0..<(most - least) {
                    let body = try add(node, then: current)
                    current = append(.split([body, next]))
                }
            } else {
                let loop = append(.split([next]))
                let body = try add(node, then: loop)
                steps[loop] = .split([body, next])
                current = loop
            }
            for _ in 0..<least { current = try add(node, then: current) }
            return current
        }
    }

    private mutating func append(_ step: Step) -> Int {
        steps.append(step)
        return steps.count - 1
    }

    package func matches(_ text: String) -> Bool {
        let scalars = text.unicodeScalars.map(\.value)
        var current: [Int] = []
        for position in 0...scalars.count {
            var seen = [Bool](repeating: false, count: steps.count)
            var isAccepted = false
            var reached: [Int] = []
            // The match may begin anywhere.
            var open = current + [first]
            while let index = open.popLast() {
                if seen[index] { continue }
                seen[index] = true
                switch steps[index] {
                case .accept: isAccepted = true
                case .split(let next): open += next
                case .start(let next): if position == 0 { open.append(next) }
                case .end(let next): if position == scalars.count { open.append(next) }
                case .scalars: reached.append(index)
                }
            }
            if isAccepted { return true }
            guard position < scalars.count else { return false }
            current = reached.compactMap { index in
                guard case .scalars(let set, let next) = steps[index], set.contains(scalars[position]) else {
                    return nil
                }
                return next
            }
        }
        return false
    }

    private struct Parser {
        private let scalars: [Unicode.Scalar]
        private var position = 0
        private static let depthLimit = 100
        /// Of a repetition, as in Go.
        private static let countLimit = 1000

        init(_ scalars: [Unicode.Scalar]) { self.scalars = scalars }

        var isAtEnd: Bool { position == scalars.count }
        private var next: Unicode.Scalar? { position < scalars.count ? scalars[position] : nil }

        private mutating func take(_ scalar: Unicode.Scalar) -> Bool {
            guard next == scalar else { return false }
            position += 1
            return true
        }

        mutating func choice(depth: Int) throws(Fault) -> Node {
            guard depth < Self.depthLimit else { throw Fault(description: "its groups are nested too deep") }
            var nodes = [try sequence(depth: depth)]
            while take("|") { nodes.append(try sequence(depth: depth)) }
            return nodes.count == 1 ? nodes[0] : .choice(nodes)
        }

        private mutating func sequence(depth: Int) throws(Fault) -> Node {
            var nodes: [Node] = []
            while let scalar = next, scalar != "|", scalar != ")" {
                var node = try atom(depth: depth)
                while let (least, most) = try count() {
                    node = .repeat(node, least, most)
                    // Whether it takes as little as it can makes no difference here.
                    _ = take("?")
                }
                nodes.append(node)
            }
            return nodes.isEmpty ? .empty : .sequence(nodes)
        }

        private mutating func count() throws(Fault) -> (Int, Int?)? {
            if take("*") { return (0, nil) }
            if take("+") { return (1, nil) }
            if take("?") { return (0, 1) }
            guard next == "{" else { return nil }
            let start = position
            position += 1
            let least = number()
            var most = least
            if take(",") { most = number() ?? (next == "}" ? nil : -1) }
            guard let least, take("}") else {
                // Not a repetition: the characters themselves.
                position = start
                return nil
            }
            guard least <= Self.countLimit, most ?? least <= Self.countLimit, most ?? least >= least else {
                throw Fault(description: "a repetition is not between 0 and \(Self.countLimit)")
            }
            return (least, most)
        }

        private mutating func number() -> Int? {
            var text = ""
            while let scalar = next, ("0"..."9").contains(scalar), text.count < 6 {
                text.unicodeScalars.append(scalar)
                position += 1
            }
            return Int(text)
        }

        private mutating func atom(depth: Int) throws(Fault) -> Node {
            guard let scalar = next else { throw Fault(description: "it ends too early") }
            position += 1
            switch scalar {
            case "^": return .start
            case "$": return .end
            case ".": return .scalars(ScalarSet(ranges: [10...10], isInverted: true))
            case "[": return .scalars(try characterClass())
            case "(":
                if take("?"), !take(":") { throw Fault(description: "groups have no options here") }
                let node = try choice(depth: depth + 1)
                guard take(")") else { throw Fault(description: "a parenthesis is not closed") }
                return node
            case "*", "+", "?": throw Fault(description: "there is nothing to repeat")
            case "\\": return .scalars(try escape())
            default: return .scalars(ScalarSet(ranges: [scalar.value...scalar.value]))
            }
        }

        private static let digits: [ClosedRange<UInt32>] = [48...57]
        private static let words: [ClosedRange<UInt32>] = [48...57, 65...90, 95...95, 97...122]
        private static let spaces: [ClosedRange<UInt32>] = [9...10, 12...13, 32...32]

        private mutating func escape() throws(Fault) -> ScalarSet {
            guard let scalar = next else { throw Fault(description: "it ends in a backslash") }
            position += 1
            switch scalar {
            case "d": return ScalarSet(ranges: Self.digits)
            case "D": return ScalarSet(ranges: Self.digits, isInverted: true)
            case "w": return ScalarSet(ranges: Self.words)
            case "W": return ScalarSet(ranges: Self.words, isInverted: true)
            case "s": return ScalarSet(ranges: Self.spaces)
            case "S": return ScalarSet(ranges: Self.spaces, isInverted: true)
            case "n": return ScalarSet(ranges: [10...10])
            case "r": return ScalarSet(ranges: [13...13])
            case "t": return ScalarSet(ranges: [9...9])
            case "A"..."Z", "a"..."z", "0"..."9":
                throw Fault(description: "\"\\\(scalar)\" is not known here")
            default: return ScalarSet(ranges: [scalar.value...scalar.value])
            }
        }

        private mutating func characterClass() throws(Fault) -> ScalarSet {
            var set = ScalarSet(ranges: [], isInverted: take("^"))
            var isFirst = true
            while let scalar = next, scalar != "]" || isFirst {
                isFirst = false
                position += 1
                if scalar == "\\" {
                    let escaped = try escape()
                    if escaped.isInverted {
                        throw Fault(description: "a class holds the opposite of another")
                    }
                    set.ranges += escaped.ranges
                    continue
                }
                if scalar == "[", next == ":" { throw Fault(description: "named classes are not known here") }
                guard next == "-", position + 1 < scalars.count, scalars[position + 1] != "]" else {
                    set.ranges.append(scalar.value...scalar.value)
                    continue
                }
                position += 1
                var last = scalars[position]
                position += 1
                if last == "\\" {
                    guard let escaped = next else { throw Fault(description: "it ends in a backslash") }
                    last = escaped
                    position += 1
                }
                guard scalar <= last else { throw Fault(description: "a range goes backwards") }
                set.ranges.append(scalar.value...last.value)
            }
            guard take("]") else { throw Fault(description: "a class is not closed") }
            return set
        }
    }
}
