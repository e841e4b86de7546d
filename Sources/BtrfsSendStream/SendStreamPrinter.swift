/// Shows commands to people (text) and to programs (JSON), one line a command, without a newline at the end.
public enum SendStreamPrinter {
    enum Value {
        case bytes(ArraySlice<UInt8>)
        case unsigned(UInt64)
        case octal(UInt64)
        case hexadecimal(UInt64)
        case time(SendTime)
        case uuid(SubvolumeUUID)
        /// Contents of a file: only how many there are.
        case length(Int)
        /// A word of ASCII letters, digits and underscores.
        case word(String)
        /// A value that is rarely text: always base64 in JSON.
        case binary(ArraySlice<UInt8>)
    }

    /// `mkfile          path=a/b ino=257`: the name padded to sixteen columns, then `key=value` with a space between.
    /// Bytes that could be mistaken are escaped as `btrfs receive --dump` does it: `\n`, `\ `, `\\`, `\377`. Modes are
    /// octal, times UTC with nanoseconds, compressions named as ``SendCompression/description`` does. Contents of files
    /// are shown as their length in bytes.
    public static func text(_ command: SendCommand) -> String {
        var line = Array(command.name.utf8)
        let fields = fields(command)
        if !fields.isEmpty {
            line.append(contentsOf: repeatElement(UInt8(ascii: " "), count: max(1, 16 - line.count)))
        }
        for (index, field) in fields.enumerated() {
            if index > 0 { line.append(UInt8(ascii: " ")) }
            line.append(contentsOf: field.0.utf8)
            line.append(UInt8(ascii: "="))
            switch field.1 {
            case .bytes(let bytes), .binary(let bytes): appendEscaped(bytes, to: &line)
            case .unsigned(let value): line.append(contentsOf: String(value).utf8)
            case .octal(let value): line.append(contentsOf: String(value, radix: 8).utf8)
            case .hexadecimal(let value): line.append(contentsOf: "0x\(String(value, radix: 16))".utf8)
            case .time(let time): line.append(contentsOf: text(time).utf8)
            case .uuid(let uuid): line.append(contentsOf: uuid.description.utf8)
            case .length(let count): line.append(contentsOf: String(count).utf8)
            case .word(let word): line.append(contentsOf: word.utf8)
            }
        }
        return String(decoding: line, as: UTF8.self)
    }

    /// `{"command":"mkfile","path":"a/b","ino":257}`. A byte value that is not UTF-8 has `Base64` added to its key.
    /// Integers may need 64 bits. Modes are strings of octal digits, times strings after RFC 3339, compressions the names
    /// of ``SendCompression/description``. Contents of files are shown as their length in bytes (`len`).
    public static func json(_ command: SendCommand) -> String {
        var line = "{\"command\":\"\(command.name)\""
        for (key, value) in fields(command) {
            line += ",\"\(key)"
            switch value {
            case .bytes(let bytes):
                if let text = String(validating: bytes, as: UTF8.self) {
                    line += "\":"
                    appendQuoted(text, to: &line)
                } else {
                    line += "Base64\":\"\(base64(bytes))\""
                }
            case .binary(let bytes): line += "Base64\":\"\(base64(bytes))\""
            case .unsigned(let value), .hexadecimal(let value): line += "\":\(value)"
            case .octal(let value): line += "\":\"\(String(value, radix: 8))\""
            case .time(let time): line += "\":\"\(text(time))\""
            case .uuid(let uuid): line += "\":\"\(uuid)\""
            case .length(let count): line += "\":\(count)"
            case .word(let word): line += "\":\"\(word)\""
            }
        }
        return line + "}"
    }

    static func fields(_ command: SendCommand) -> [(String, Value)] {
        func node(_ path: ArraySlice<UInt8>, _ inode: UInt64?) -> [(String, Value)] {
            [("path", .bytes(path))] + (inode.map { [("ino", .unsigned($0))] } ?? [])
        }
        switch command {
        case .subvol(let path, let uuid, let ctransid):
            return [("path", .bytes(path)), ("uuid", .uuid(uuid)), ("transid", .unsigned(ctransid))]
        case .snapshot(let path, let uuid, let ctransid, let cloneUUID, let cloneCtransid):
            return [
                ("path", .bytes(path)), ("uuid", .uuid(uuid)), ("transid", .unsigned(ctransid)),
                ("parent_uuid", .uuid(cloneUUID)), ("parent_transid", .unsigned(cloneCtransid)),
            ]
        case .mkfile(let path, let inode), .mkdir(let path, let inode):
            return node(path, inode)
        case .mknod(let path, let inode, let mode, let device),
            .mkfifo(let path, let inode, let mode, let device),
            .mksock(let path, let inode, let mode, let device):
            return node(path, inode) + [("mode", .octal(mode)), ("dev", .hexadecimal(device))]
        case .symlink(let path, let inode, let target):
            return node(path, inode) + [("dest", .bytes(target))]
        case .rename(let path, let to):
            return [("path", .bytes(path)), ("dest", .bytes(to))]
        case .link(let path, let existing):
            return [("path", .bytes(path)), ("dest", .bytes(existing))]
        case .unlink(let path), .rmdir(let path):
            return [("path", .bytes(path))]
        case .setXattr(let path, let name, let value):
            return [("path", .bytes(path)), ("name", .bytes(name)), ("data", .binary(value))]
        case .removeXattr(let path, let name):
            return [("path", .bytes(path)), ("name", .bytes(name))]
        case .write(let path, let offset, let data):
            return [("path", .bytes(path)), ("offset", .unsigned(offset)), ("len", .length(data.count))]
        case .clone(
            let path, let offset, let length, let cloneUUID, let cloneCtransid, let clonePath, let cloneOffset
        ):
            return [
                ("path", .bytes(path)), ("offset", .unsigned(offset)), ("len", .unsigned(length)),
                ("from", .bytes(clonePath)), ("clone_offset", .unsigned(cloneOffset)),
                ("clone_uuid", .uuid(cloneUUID)), ("clone_transid", .unsigned(cloneCtransid)),
            ]
        case .truncate(let path, let size):
            return [("path", .bytes(path)), ("size", .unsigned(size))]
        case .chmod(let path, let mode):
            return [("path", .bytes(path)), ("mode", .octal(mode))]
        case .chown(let path, let uid, let gid):
            return [("path", .bytes(path)), ("uid", .unsigned(uid)), ("gid", .unsigned(gid))]
        case .utimes(let path, let atime, let mtime, let ctime, let otime):
            return [
                ("path", .bytes(path)), ("atime", .time(atime)), ("mtime", .time(mtime)),
                ("ctime", .time(ctime)),
            ]
                + (otime.map { [("otime", .time($0))] } ?? [])
        case .end:
            return []
        case .updateExtent(let path, let offset, let length):
            return [("path", .bytes(path)), ("offset", .unsigned(offset)), ("len", .unsigned(length))]
        case .fallocate(let path, let mode, let offset, let length):
            return [
                ("path", .bytes(path)), ("mode", .unsigned(UInt64(mode))), ("offset", .unsigned(offset)),
                ("len", .unsigned(length)),
            ]
        case .fileattr(let path, let attributes):
            return [("path", .bytes(path)), ("fileattr", .hexadecimal(attributes))]
        case .encodedWrite(
            let path, let offset, let unencodedFileLength, let unencodedLength, let unencodedOffset,
            let compression, let encryption, let data):
            return [
                ("path", .bytes(path)), ("offset", .unsigned(offset)), ("len", .length(data.count)),
                ("unencoded_file_len", .unsigned(unencodedFileLength)),
                ("unencoded_len", .unsigned(unencodedLength)),
                ("unencoded_offset", .unsigned(unencodedOffset)),
                ("compression", .word(compression.description)),
                ("encryption", .unsigned(UInt64(encryption))),
            ]
        case .enableVerity(let path, let algorithm, let blockSize, let salt, let signature):
            return [
                ("path", .bytes(path)), ("algorithm", .unsigned(UInt64(algorithm))),
                ("block_size", .unsigned(UInt64(blockSize))), ("salt", .binary(salt)),
                ("sig_len", .length(signature.count)),
            ]
        }
    }

    private static func appendEscaped(_ bytes: ArraySlice<UInt8>, to line: inout [UInt8]) {
        let backslash = UInt8(ascii: "\\")
        for byte in bytes {
            switch byte {
            case 7: line += [backslash, UInt8(ascii: "a")]
            case 8: line += [backslash, UInt8(ascii: "b")]
            case 9: line += [backslash, UInt8(ascii: "t")]
            case 10: line += [backslash, UInt8(ascii: "n")]
            case 11: line += [backslash, UInt8(ascii: "v")]
            case 12: line += [backslash, UInt8(ascii: "f")]
            case 13: line += [backslash, UInt8(ascii: "r")]
            case 27: line += [backslash, UInt8(ascii: "e")]
            case UInt8(ascii: " "), backslash: line += [backslash, byte]
            case 0x21...0x7e: line.append(byte)
            default:
                line += [
                    backslash, UInt8(ascii: "0") + (byte >> 6), UInt8(ascii: "0") + (byte >> 3 & 7),
                    UInt8(ascii: "0") + (byte & 7),
                ]
            }
        }
    }

    /// RFC 8259, section 7.
    private static func appendQuoted(_ text: String, to line: inout String) {
        line += "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": line += "\\\""
            case "\\": line += "\\\\"
            case "\n": line += "\\n"
            case "\t": line += "\\t"
            case "\r": line += "\\r"
            case _ where scalar.value < 0x20 || scalar.value == 0x7f:
                let digits = String(scalar.value, radix: 16)
                line += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: line.unicodeScalars.append(scalar)
            }
        }
        line += "\""
    }

    /// RFC 4648, section 4.
    private static func base64(_ bytes: ArraySlice<UInt8>) -> String {
        let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
        var result = [UInt8]()
        result.reserveCapacity((bytes.count + 2) / 3 * 4)
        var index = bytes.startIndex
        while index < bytes.endIndex {
            let group = bytes[index..<min(index + 3, bytes.endIndex)]
            var bits: UInt32 = 0
            for byte in group { bits = bits << 8 | UInt32(byte) }
            bits <<= UInt32(8 * (3 - group.count))
            for digit in 0..<4 {
                result.append(
                    digit <= group.count
                        ? alphabet[Int(bits >> UInt32(18 - 6 * digit) & 63)] : UInt8(ascii: "="))
            }
            index += 3
        }
        return String(decoding: result, as: UTF8.self)
    }

    /// RFC 3339 in UTC with nine digits of nanoseconds; years may have more than four digits or a sign.
    static func text(_ time: SendTime) -> String {
        func pad(_ value: Int64, _ width: Int) -> String {
            let digits = String(value.magnitude)
            let zeros = String(repeating: "0", count: max(0, width - digits.count))
            return (value < 0 ? "-" : "") + zeros + digits
        }
        var days = time.seconds / 86_400
        var second = time.seconds % 86_400
        if second < 0 {
            second += 86_400
            days -= 1
        }
        // Days since 0000-03-01 in eras of 400 years; a year begins in March, so that the leap day is its last.
        let shifted = days + 719_468
        let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
        let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        return pad(year, 4) + "-" + pad(month, 2) + "-" + pad(day, 2) + "T" + pad(second / 3600, 2) + ":"
            + pad(second / 60 % 60, 2) + ":" + pad(second % 60, 2) + "." + pad(Int64(time.nanoseconds), 9)
            + "Z"
    }
}

extension SendCommand: CustomStringConvertible {
    /// The line of `SendStreamPrinter.text`.
    public var description: String { SendStreamPrinter.text(self) }
}
