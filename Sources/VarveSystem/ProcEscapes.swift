extension BytePath {
    /// A path as the tables of /proc write it (proc_swaps(5), proc_pid_mountinfo(5)): blanks, tabs, newlines and backslashes are a
    /// backslash and three octal digits (`mangle_path`, fs/seq_file.c). Nil if a NUL is among them.
    package init?(unescapingOctal field: ArraySlice<UInt8>) {
        var result: [UInt8] = []
        result.reserveCapacity(field.count)
        var rest = field
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "\\"), rest.count >= 3,
                let value = UInt8(String(decoding: rest.prefix(3), as: UTF8.self), radix: 8)
            {
                rest = rest.dropFirst(3)
                result.append(value)
            } else {
                result.append(byte)
            }
        }
        self.init(result)
    }
}
