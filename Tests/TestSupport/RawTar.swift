/// Bytes of an archive by hand, laid over those of a header.
package struct Patch: Sendable {
    package var at: Int
    package var bytes: [UInt8]
    package init(_ at: Int, _ bytes: [UInt8]) {
        self.at = at
        self.bytes = bytes
    }
    package init(_ at: Int, _ text: String) { self.init(at, Array(text.utf8)) }
}

package func octal(_ value: Int, _ digits: Int) -> [UInt8] {
    let text = String(value, radix: 8)
    return Array((String(repeating: "0", count: max(0, digits - text.count)) + text).utf8)
}

/// A header block, with `patches` laid over it before its checksum is made.
package func tarHeader(
    _ name: String, _ type: Character = "0", size: Int = 0, link: String = "", magic: String = "ustar\u{0}00",
    prefix: String = "", _ patches: [Patch] = [], breakSum: Bool = false
) -> [UInt8] {
    var block = [UInt8](repeating: 0, count: 512)
    let fields =
        [
            Patch(0, name), Patch(100, octal(0o644, 7)), Patch(108, octal(0, 7)), Patch(116, octal(0, 7)),
            Patch(124, octal(size, 11)), Patch(136, octal(0, 11)), Patch(156, String(type)), Patch(157, link),
            Patch(257, magic), Patch(345, prefix),
        ] + patches + [Patch(148, "        ")]
    for field in fields {
        block.replaceSubrange(field.at..<(field.at + field.bytes.count), with: field.bytes)
    }
    let sum = block.reduce(0) { $0 + Int($1) } + (breakSum ? 1 : 0)
    block.replaceSubrange(148..<156, with: octal(sum, 6) + [0, 0x20])
    return block
}

/// `bytes` filled up to a whole block.
package func padded(_ bytes: some Collection<UInt8>) -> [UInt8] {
    Array(bytes) + [UInt8](repeating: 0, count: (512 - bytes.count % 512) % 512)
}

package func padded(_ text: String) -> [UInt8] { padded(text.utf8) }

/// A header and its data.
package func tarEntry(_ name: String, _ type: Character = "0", _ content: String = "", link: String = "")
    -> [UInt8]
{
    tarHeader(name, type, size: content.utf8.count, link: link) + padded(content)
}

package func paxRecord(_ key: String, _ value: [UInt8]) -> [UInt8] {
    let rest = key.utf8.count + value.count + 3
    let digits = (1...8).first { String(rest + $0).count == $0 } ?? 0
    return Array("\(rest + digits) \(key)=".utf8) + value + [0x0a]
}

package func paxHeader(_ records: [(String, String)], _ type: Character = "x") -> [UInt8] {
    paxHeader(raw: records.flatMap { paxRecord($0.0, Array($0.1.utf8)) }, type)
}

package func paxHeader(raw: [UInt8], _ type: Character = "x") -> [UInt8] {
    tarHeader("pax", type, size: raw.count) + padded(raw)
}

package func gnuLong(_ type: Character, _ text: String) -> [UInt8] {
    tarHeader("././@LongLink", type, size: text.utf8.count + 1, magic: gnuMagic) + padded(text + "\u{0}")
}

package let gnuMagic = "ustar  \u{0}"
package let endOfTar = [UInt8](repeating: 0, count: 1024)
