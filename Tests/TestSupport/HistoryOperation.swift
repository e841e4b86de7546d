package import VarveSystem

/// One step of a history, recorded with every value it needs: it can be carried out again with any other step
/// left out. A step whose ground is gone fails with an errno, which is part of the history and no failure.
///
/// Its text is one line, `rename a/b c` or `quietly write f 4096 100 7`: words are paths, with every byte
/// that is not printable ASCII as `\xHH` and long runs of one byte as `\{255n}`.
package struct HistoryOperation: Hashable, Sendable, LosslessStringConvertible {
    package enum Verb: String, Sendable, CaseIterable {
        // Files and what is in them. SEED chooses the bytes.
        /// `create FILE SIZE SEED MODE`
        case create
        /// `tmpfile FILE SIZE SEED`: O_TMPFILE, then linked under the name.
        case tmpfile
        /// `write FILE OFFSET LENGTH SEED`
        case write
        /// `append FILE LENGTH SEED`
        case append
        /// `truncate FILE SIZE`
        case truncate
        /// `punch FILE OFFSET LENGTH`: fallocate with PUNCH_HOLE.
        case punch
        /// `zero FILE OFFSET LENGTH`: fallocate with ZERO_RANGE.
        case zero
        /// `allocate FILE OFFSET LENGTH KEEPSIZE`: fallocate.
        case allocate
        /// `rewrite FILE`: its own bytes written over it.
        case rewrite
        /// `reflink FILE TO`: the whole of FILE by FICLONERANGE, to the start of TO, which is made if absent.
        case reflink
        /// `clone FILE TO FROM-OFFSET TO-OFFSET LENGTH`: FICLONERANGE of a part.
        case clone
        /// `copy FILE TO FROM-OFFSET TO-OFFSET LENGTH`: copy_file_range.
        case copy
        /// `dedupe FILE OTHER`: FIDEDUPERANGE over the length of FILE.
        case dedupe
        /// `defrag FILE`
        case defrag
        /// `read PATH`: a file, a link or a directory, so that its atime may change.
        case read
        /// `fsync PATH`
        case fsync
        /// `sync`: syncfs.
        case sync

        // Names.
        /// `mkdir DIR MODE`
        case mkdir
        /// `mkdirs DIR DEPTH LENGTH`: DIR and DEPTH directories in each other below it, with names of LENGTH
        /// bytes.
        case mkdirs
        /// `symlink PATH TARGET`
        case symlink
        /// `fifo PATH MODE`
        case fifo
        /// `device PATH BLOCK MAJOR MINOR`
        case device
        /// `socket PATH`
        case socket
        /// `link PATH NEW`
        case link
        /// `links PATH DIR FIRST COUNT`: DIR/lFIRST, DIR/lFIRST+1 … to PATH.
        case links
        /// `unlink PATH`
        case unlink
        /// `orphan FILE`: unlinked, but held open to the end of the history.
        case orphan
        /// `rmdir DIR`
        case rmdir
        /// `rmtree PATH`: with all below it, nested subvolumes too.
        case rmtree
        /// `rename PATH NEW`: over what is there.
        case rename
        /// `exchange PATH OTHER`: renameat2 with RENAME_EXCHANGE.
        case exchange
        /// `replace PATH`: by a new inode that is equal in everything, but has no other names.
        case replace
        /// `twin FILE NEW`: a second file that is equal in everything.
        case twin

        // Metadata.
        /// `chmod PATH MODE`
        case chmod
        /// `chown PATH UID GID`
        case chown
        /// `setattr PATH NAME LENGTH SEED`
        case setattr
        /// `delattr PATH NAME`
        case delattr
        /// `setcap FILE BITS`: `security.capability`, revision 2.
        case setcap
        /// `setacl PATH DEFAULT UID PERMISSIONS`: the access ACL or, if DEFAULT is 1, the default one.
        case setacl
        /// `property PATH VALUE`: the xattr `btrfs.compression`, which is no part of any image.
        case property
        /// `touch PATH SECONDS NANOSECONDS`: the mtime.
        case touch
        /// `same PATH WHAT`: mode (0), owner (1), xattrs (2) or times (3) set to what they are.
        case same

        // Subvolumes.
        /// `subvolume DIR`
        case subvolume
        /// `nest DIR NEW`: a writable snapshot of the nested subvolume DIR.
        case nest
        /// `unsubvolume DIR`
        case unsubvolume

        // Files that go on being written to.
        /// `hold FILE`: opened for writing, and mapped, to the end of the history.
        case hold
        /// `late OFFSET LENGTH SEED`: written to every file held, through its descriptor and, if LENGTH is even, its mapping,
        /// whichever subvolume it lies in and whether that is read-only by now.
        case late

        // The course of the history.
        /// `snapshot`: a read-only snapshot of the tree, numbered 0, 1 …
        case snapshot
        /// `rebase N`: what follows happens in a new writable snapshot of number N.
        case rebase
        /// `freeze`: the tree itself becomes the next of those numbers, by being made read-only: nothing is written out. What
        /// follows happens in a writable snapshot of it, taken when it is needed.
        case freeze
        /// `edit N FILE OFFSET LENGTH SEED`: number N is made writable for one write to a file, which is not written out.
        case edit

        /// How many words and numbers stand behind the verb, and which number is a mode.
        var shape: (words: Int, numbers: Int, mode: Int?) {
            switch self {
            case .sync, .snapshot, .freeze: (0, 0, nil)
            case .late: (0, 3, nil)
            case .edit: (1, 4, nil)
            case .rebase: (0, 1, nil)
            case .rewrite, .defrag, .read, .fsync, .hold, .socket, .unlink, .orphan, .rmdir, .rmtree,
                .replace,
                .subvolume, .unsubvolume:
                (1, 0, nil)
            case .truncate, .setcap, .same: (1, 1, nil)
            case .chmod, .mkdir, .fifo: (1, 1, 0)
            case .tmpfile, .append, .punch, .zero, .mkdirs, .chown, .touch: (1, 2, nil)
            case .create: (1, 3, 2)
            case .write, .allocate, .device, .setacl: (1, 3, nil)
            case .reflink, .dedupe, .symlink, .link, .rename, .exchange, .twin, .delattr, .property, .nest:
                (2, 0, nil)
            case .links, .setattr: (2, 2, nil)
            case .clone, .copy: (2, 3, nil)
            }
        }
    }

    package var verb: Verb
    /// Afterwards the mtimes of the paths named and of their directories are set back to what they were, so
    /// that only the operation itself can be seen.
    package var isQuiet: Bool
    private var words: [BytePath]
    private var numbers: [Int64]

    /// The operands must be as many as `verb` takes.
    package init(_ verb: Verb, _ words: [BytePath] = [], _ numbers: [Int] = [], isQuiet: Bool = false) {
        precondition(words.count == verb.shape.words && numbers.count == verb.shape.numbers, "\(verb)")
        self.verb = verb
        self.words = words
        self.numbers = numbers.map { Int64($0) }
        self.isQuiet = isQuiet
    }

    func word(_ index: Int) -> BytePath { words[index] }
    func number(_ index: Int) -> Int64 { numbers[index] }
    package func count(_ index: Int) -> Int { Int(clamping: max(0, numbers[index])) }
    func bits(_ index: Int) -> UInt32 { UInt32(truncatingIfNeeded: numbers[index]) }

    /// The words that are paths of the tree.
    var paths: [BytePath] {
        switch verb {
        case .symlink, .setattr, .delattr, .property: [words[0]]
        default: words
        }
    }

    package init?(_ line: String) {
        var parts = line.split(separator: " ").map(String.init)
        isQuiet = parts.first == "quietly"
        if isQuiet { parts.removeFirst() }
        guard let first = parts.first, let verb = Verb(rawValue: first) else { return nil }
        let shape = verb.shape
        guard parts.count == 1 + shape.words + shape.numbers else { return nil }
        self.verb = verb
        words = parts[1..<(1 + shape.words)].compactMap(Self.unescape)
        numbers = parts[(1 + shape.words)...].compactMap { text in
            text.hasPrefix("0o") ? Int64(text.dropFirst(2), radix: 8) : Int64(text)
        }
        guard words.count == shape.words, numbers.count == shape.numbers else { return nil }
    }

    package var description: String {
        var parts = isQuiet ? ["quietly", verb.rawValue] : [verb.rawValue]
        parts += words.map(Self.escape)
        for (index, number) in numbers.enumerated() {
            parts.append(index == verb.shape.mode ? "0o" + String(number, radix: 8) : String(number))
        }
        return parts.joined(separator: " ")
    }

    private static func escape(_ path: BytePath) -> String {
        var result = ""
        let bytes = Array(path.bytes)
        var index = 0
        while index < bytes.count {
            let byte = bytes[index]
            var end = index
            while end < bytes.count, bytes[end] == byte { end += 1 }
            let isPlain = byte > 0x20 && byte < 0x7f && byte != UInt8(ascii: "\\")
            if isPlain, end - index > 8, byte != UInt8(ascii: "}") {
                result += "\\{\(end - index)\(Character(UnicodeScalar(byte)))}"
                index = end
            } else {
                let digits = String(byte, radix: 16)
                result += isPlain ? String(UnicodeScalar(byte)) : "\\x" + (byte < 16 ? "0" : "") + digits
                index += 1
            }
        }
        return result
    }

    private static func unescape(_ text: String) -> BytePath? {
        var result = [UInt8]()
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "\\") else {
                result.append(byte)
                continue
            }
            switch rest.popFirst() {
            case UInt8(ascii: "x"):
                let digits = String(decoding: rest.prefix(2), as: UTF8.self)
                guard digits.utf8.count == 2, let value = UInt8(digits, radix: 16) else { return nil }
                result.append(value)
                rest = rest.dropFirst(2)
            case UInt8(ascii: "{"):
                // A closing brace is never written as a run.
                guard let close = rest.firstIndex(of: UInt8(ascii: "}")), close > rest.startIndex + 1
                else { return nil }
                guard let count = Int(String(decoding: rest[..<(close - 1)], as: UTF8.self)), count < 1 << 16
                else { return nil }
                result += Array(repeating: rest[close - 1], count: count)
                rest = rest[(close + 1)...]
            default: return nil
            }
        }
        return BytePath(result)
    }
}

/// A list of operations in the course of which snapshots are taken.
package struct History: Hashable, Sendable, LosslessStringConvertible {
    /// What it was generated from; nil for one that was written or shrunk.
    package var seed: UInt64?
    package var operations: [HistoryOperation]

    package init(seed: UInt64? = nil, _ operations: [HistoryOperation]) {
        self.seed = seed
        self.operations = operations
    }

    /// One operation a line; empty lines and lines that begin with `#` are passed over. Nil if a line is
    /// none.
    package init?(_ text: String) {
        operations = []
        for line in text.split(separator: "\n") {
            let trimmed = line.drop { $0 == " " }
            if trimmed.isEmpty || trimmed.hasPrefix("#") { continue }
            guard let operation = HistoryOperation(String(trimmed)) else { return nil }
            operations.append(operation)
        }
    }

    package var description: String { operations.map { "\($0)\n" }.joined() }
}
