import VarveFormats
import Glibc
import VarveSystem

/// What the records of pax headers say about an entry, nil or empty where they say nothing
/// (POSIX.1-2017, pax, "pax Extended Header"; star(4) for `SCHILY.`; the GNU tar manual for `GNU.sparse.`).
struct PaxRecords {
    var path: BytePath?
    var linkPath: BytePath?
    var size: Int64?
    var uid: UInt32?
    var gid: UInt32?
    var modificationTime: Timestamp?
    var accessTime: Timestamp?
    var changeTime: Timestamp?
    var deviceMajor: UInt32?
    var deviceMinor: UInt32?
    var accessACL: [UInt8]?
    var defaultACL: [UInt8]?
    /// In the order of the records; the last one of a name counts.
    var extendedAttributes: [ExtendedAttribute] = []
    var sparse: PaxSparse?
    /// `SCHILY.realsize`: bytes of the file, holes included, as star and libarchive have it.
    var schilyRealSize: Int64?
    /// `SUN.holesdata`: the data holds the zeros of these holes too. libarchive makes holes of them, whatever the data is.
    var solarisHoles: SolarisHoles?
}

/// The record `SUN.holesdata` of Solaris.
struct SolarisHoles {
    /// In rising order.
    var holes: [Range<Int64>] = []
    /// Where the last of data and holes ends.
    var end: Int64 = 0
}

/// The records `GNU.sparse.*` of the formats 0.0, 0.1 and 1.0.
struct PaxSparse {
    var major: Int64?
    var minor: Int64?
    var name: BytePath?
    /// `GNU.sparse.size`: bytes of the file with its holes, before format 1.0.
    var size: Int64?
    /// `GNU.sparse.realsize`: the same, from format 1.0 on.
    var realSize: Int64?
    var segmentCount: Int64?
    /// Offset and length in turns.
    var numbers: [Int64] = []
    /// Whether `numbers` come from `GNU.sparse.map`.
    var hasMap = false
}

/// Reads the records of one pax header.
@unsafe struct PaxParser {
    let limits: TarLimits
    /// Whether the records hold for all entries to come (`g`) or for the next one (`x`).
    let isGlobal: Bool

    /// Applies all records of `body` to `records`; returns the bytes of those that are remembered.
    func parse(_ body: UnsafeRawBufferPointer, into records: inout PaxRecords) throws(TarError.Reason) -> Int
    {
        var start = 0
        var kept = 0
        while start < body.count {
            var index = start
            var length = 0
            while index < body.count, case let digit = unsafe body[index] &- UInt8(ascii: "0"), digit <= 9 {
                length = length &* 10 &+ Int(digit)
                guard length <= body.count else {
                    throw .paxRecord("its length is more than the header holds")
                }
                index &+= 1
            }
            guard index > start, index < body.count, unsafe body[index] == UInt8(ascii: " ") else {
                throw .paxRecord("it does not start with its length and a space")
            }
            guard length <= body.count &- start else {
                throw .paxRecord("its length is more than the header holds")
            }
            let keyStart = index &+ 1
            let end = start &+ length &- 1
            guard keyStart < end else { throw .paxRecord("its length leaves no room for a keyword") }
            guard unsafe body[end] == UInt8(ascii: "\n") else {
                throw .paxRecord("it does not end with a newline")
            }
            let text = unsafe UnsafeRawBufferPointer(rebasing: body[keyStart..<end])
            guard let equals = unsafe text.firstIndex(of: UInt8(ascii: "=")), equals > 0 else {
                throw .paxRecord("it has no keyword")
            }
            let key = unsafe UnsafeRawBufferPointer(rebasing: text[..<equals])
            // GNU tar passes over spaces here, others do not; Go takes no keyword with a NUL.
            guard unsafe key[0] != 0x20, unsafe key[0] != 0x09, unsafe !key.contains(0) else {
                throw .paxRecord("its keyword starts with a space or holds a NUL")
            }
            let value = unsafe UnsafeRawBufferPointer(rebasing: text[(equals &+ 1)...])
            if try unsafe apply(key, value, to: &records) { kept &+= length }
            start &+= length
        }
        return kept
    }

    /// Returns false for a record that means nothing here.
    private func apply(
        _ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, to records: inout PaxRecords
    ) throws(TarError.Reason) -> Bool {
        // By POSIX an empty value takes back what an earlier record said; GNU tar takes it for a mistake.
        switch key.count {
        case 3 where unsafe key.equals("uid"): records.uid = try unsafe owner("uid", value)
        case 3 where unsafe key.equals("gid"): records.gid = try unsafe owner("gid", value)
        case 4 where unsafe key.equals("path"): records.path = try unsafe name("path", value)
        case 4 where unsafe key.equals("size"):
            try unsafe notGlobal("size")
            records.size = try unsafe natural("size", value)
        case 5 where unsafe key.equals("mtime"): records.modificationTime = try unsafe time("mtime", value)
        case 5 where unsafe key.equals("atime"): records.accessTime = try unsafe time("atime", value)
        case 5 where unsafe key.equals("ctime"): records.changeTime = try unsafe time("ctime", value)
        case 5 where unsafe key.equals("uname") || key.equals("gname"):
            // Owners are numbers.
            if unsafe value.contains(0) { throw unsafe invalid(key, value) }
            return false
        case 8 where unsafe key.equals("linkpath"): records.linkPath = try unsafe name("linkpath", value)
        case 15 where unsafe key.equals("SCHILY.devmajor"):
            records.deviceMajor = try unsafe device("SCHILY.devmajor", value)
        case 15 where unsafe key.equals("SCHILY.devminor"):
            records.deviceMinor = try unsafe device("SCHILY.devminor", value)
        case 13 where unsafe key.equals("SUN.holesdata"):
            try unsafe notGlobal("SUN.holesdata")
            guard let holes = try unsafe holes(value) else { throw unsafe invalid(key, value) }
            records.solarisHoles = holes
        case 15 where unsafe key.equals("SCHILY.realsize"):
            try unsafe notGlobal("SCHILY.realsize")
            records.schilyRealSize = try unsafe natural("SCHILY.realsize", value)
        case 17 where unsafe key.equals("SCHILY.acl.access"):
            records.accessACL = unsafe value.isEmpty ? nil : Array(value)
        case 18 where unsafe key.equals("SCHILY.acl.default"):
            records.defaultACL = unsafe value.isEmpty ? nil : Array(value)
        case 13... where unsafe key.starts(with: "SCHILY.xattr."):
            // Here an empty value is a value: there is no field for it to bring back, and files have such
            // attributes.
            let name = unsafe Self.decodeGNU(key[13...])
            try unsafe records.extendedAttributes.append(
                attribute(name, unsafe Array(value), key: unsafe key))
        case 17... where unsafe key.starts(with: "LIBARCHIVE.xattr."):
            let name = unsafe Self.decodePercent(key[17...])
            guard let bytes = unsafe Base64.decode(value) else { throw unsafe invalid(key, value) }
            try unsafe records.extendedAttributes.append(attribute(name, bytes, key: unsafe key))
        case 11... where unsafe key.starts(with: "GNU.sparse."):
            try unsafe notGlobal("GNU.sparse")
            var sparse = records.sparse ?? PaxSparse()
            // No second copy of the numbers while one is appended.
            records.sparse = nil
            try unsafe apply(sparseKey: UnsafeRawBufferPointer(rebasing: key[11...]), value, to: &sparse)
            records.sparse = sparse
        default: return false
        }
        return true
    }

    /// A space, and where data and holes begin in turns, data first.
    private func holes(_ value: UnsafeRawBufferPointer) throws(TarError.Reason) -> SolarisHoles? {
        var result = SolarisHoles()
        guard unsafe value.first == UInt8(ascii: " ") else { return nil }
        var isHole = true
        var start = 1
        while start <= value.count {
            let next = unsafe value[start...].firstIndex(of: UInt8(ascii: " ")) ?? value.count
            guard let end = unsafe Self.decimal(value[start..<next]), end >= result.end else { return nil }
            if isHole, end > result.end {
                guard unsafe result.holes.count < limits.sparseSegments else {
                    throw unsafe .tooManySegments(limit: limits.sparseSegments)
                }
                result.holes.append(result.end..<end)
            }
            result.end = end
            isHole.toggle()
            start = next &+ 1
        }
        return result
    }

    private func apply(
        sparseKey key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, to sparse: inout PaxSparse
    ) throws(TarError.Reason) {
        switch key.count {
        case 5 where unsafe key.equals("major"): sparse.major = try unsafe natural("GNU.sparse.major", value)
        case 5 where unsafe key.equals("minor"): sparse.minor = try unsafe natural("GNU.sparse.minor", value)
        case 4 where unsafe key.equals("name"): sparse.name = try unsafe name("GNU.sparse.name", value)
        case 4 where unsafe key.equals("size"): sparse.size = try unsafe natural("GNU.sparse.size", value)
        case 8 where unsafe key.equals("realsize"):
            sparse.realSize = try unsafe natural("GNU.sparse.realsize", value)
        case 9 where unsafe key.equals("numblocks"):
            sparse.segmentCount = try unsafe natural("GNU.sparse.numblocks", value)
        case 6 where unsafe key.equals("offset"):
            if sparse.hasMap { throw .sparse("there are two of them") }
            guard sparse.numbers.count % 2 == 0 else { throw .sparse("an offset follows an offset") }
            try unsafe append(unsafe natural("GNU.sparse.offset", value), to: &sparse)
        case 8 where unsafe key.equals("numbytes"):
            guard sparse.numbers.count % 2 == 1 else { throw .sparse("a length follows a length") }
            try unsafe append(unsafe natural("GNU.sparse.numbytes", value), to: &sparse)
        case 3 where unsafe key.equals("map"):
            guard !sparse.hasMap, sparse.numbers.isEmpty else { throw .sparse("there are two of them") }
            sparse.hasMap = true
            var start = 0
            while start <= value.count {
                let end = unsafe value[start...].firstIndex(of: UInt8(ascii: ",")) ?? value.count
                let number = unsafe UnsafeRawBufferPointer(rebasing: value[start..<end])
                try unsafe append(unsafe natural("GNU.sparse.map", number), to: &sparse)
                start = end &+ 1
            }
        default: break
        }
    }

    private func append(_ number: Int64, to sparse: inout PaxSparse) throws(TarError.Reason) {
        guard unsafe sparse.numbers.count < limits.sparseSegments &* 2 else {
            throw unsafe .tooManySegments(limit: limits.sparseSegments)
        }
        sparse.numbers.append(number)
    }

    private func notGlobal(_ key: String) throws(TarError.Reason) {
        if unsafe isGlobal { throw .globalRecord(key) }
    }

    private func invalid(_ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> TarError.Reason {
        unsafe .paxValue(TarError.excerpt(key), value: Array(value.prefix(256)))
    }

    private func invalid(_ key: StaticString, _ value: UnsafeRawBufferPointer) -> TarError.Reason {
        unsafe .paxValue(key.description, value: Array(value.prefix(256)))
    }

    private func name(
        _ key: StaticString, _ value: UnsafeRawBufferPointer
    ) throws(TarError.Reason) -> BytePath {
        try unsafe notGlobal(key.description)
        if unsafe value.isEmpty { throw unsafe invalid(key, value) }
        guard unsafe value.count <= limits.path else {
            throw unsafe .nameTooLong(key.description, bytes: value.count, limit: limits.path)
        }
        guard let path = unsafe BytePath(value) else {
            throw .name("the pax record \(key) holds a NUL, which no name can hold")
        }
        return path
    }

    private func natural(_ key: StaticString, _ value: UnsafeRawBufferPointer) throws(TarError.Reason)
        -> Int64
    {
        guard let number = unsafe Self.decimal(value) else { throw unsafe invalid(key, value) }
        return number
    }

    private func owner(_ key: StaticString, _ value: UnsafeRawBufferPointer) throws(TarError.Reason) -> UInt32
    {
        guard let id = try unsafe TarReader.owner(natural(key, value)) else {
            throw unsafe invalid(key, value)
        }
        return id
    }

    private func device(_ key: StaticString, _ value: UnsafeRawBufferPointer) throws(TarError.Reason)
        -> UInt32
    {
        guard let id = try unsafe UInt32(exactly: natural(key, value)) else {
            throw unsafe invalid(key, value)
        }
        return id
    }

    private func time(_ key: StaticString, _ value: UnsafeRawBufferPointer) throws(TarError.Reason)
        -> Timestamp
    {
        guard let time = unsafe Self.timestamp(value) else { throw unsafe invalid(key, value) }
        return time
    }

    private func attribute(
        _ name: [UInt8], _ value: [UInt8], key: UnsafeRawBufferPointer
    ) throws(TarError.Reason) -> ExtendedAttribute {
        guard let path = BytePath(name), !path.isEmpty else {
            throw .paxRecord("its keyword \(unsafe TarError.excerpt(key)) names no extended attribute")
        }
        return ExtendedAttribute(name: path, value: value)
    }

    /// Decimal digits, at least one, in the range of Int64.
    static func decimal(_ text: some Collection<UInt8>) -> Int64? {
        var value: Int64 = 0
        if text.isEmpty { return nil }
        for byte in text {
            let digit = byte &- UInt8(ascii: "0")
            guard digit <= 9 else { return nil }
            let (tenfold, over) = value.multipliedReportingOverflow(by: 10)
            let (sum, carry) = tenfold.addingReportingOverflow(Int64(digit))
            if over || carry { return nil }
            value = sum
        }
        return value
    }

    /// `[-]seconds[.fraction]`; what is below a nanosecond is rounded down, towards the past.
    static func timestamp(_ text: UnsafeRawBufferPointer) -> Timestamp? {
        var index = 0
        let isNegative = unsafe text.first == UInt8(ascii: "-")
        if isNegative { index = 1 }
        var seconds: UInt64 = 0
        let firstDigit = index
        while index < text.count, case let digit = unsafe text[index] &- UInt8(ascii: "0"), digit <= 9 {
            // Anything above is out of range; below 2^63 ten times it fits.
            guard seconds <= 922_337_203_685_477_580 else { return nil }
            seconds = seconds &* 10 &+ UInt64(digit)
            index &+= 1
        }
        guard index > firstDigit else { return nil }
        var nanoseconds: UInt32 = 0
        var hasRest = false
        if index < text.count {
            guard unsafe text[index] == UInt8(ascii: ".") else { return nil }
            index &+= 1
            var scale: UInt32 = 100_000_000
            while index < text.count {
                let digit = unsafe text[index] &- UInt8(ascii: "0")
                guard digit <= 9 else { return nil }
                if scale > 0 {
                    nanoseconds &+= UInt32(digit) &* scale
                    scale /= 10
                } else if digit != 0 {
                    hasRest = true
                }
                index &+= 1
            }
        }
        if !isNegative {
            guard let whole = Int64(exactly: seconds) else { return nil }
            return Timestamp(seconds: whole, nanoseconds: nanoseconds)
        }
        if hasRest { nanoseconds &+= 1 }
        if nanoseconds > 0 {
            seconds &+= 1
            nanoseconds = 1_000_000_000 &- nanoseconds
        }
        guard seconds <= UInt64(Int64.max) + 1 else { return nil }
        return Timestamp(seconds: Int64(bitPattern: 0 &- seconds), nanoseconds: nanoseconds)
    }

    /// GNU tar writes `=` and `%` of an attribute's name as `%3D` and `%25`, and nothing else so.
    static func decodeGNU(_ name: some Collection<UInt8>) -> [UInt8] {
        let name = Array(name)
        guard name.contains(UInt8(ascii: "%")) else { return name }
        var result = [UInt8]()
        var index = 0
        while index < name.count {
            let rest = name[index...]
            if rest.starts(with: "%3D".utf8) {
                result.append(UInt8(ascii: "="))
                index += 3
            } else if rest.starts(with: "%25".utf8) {
                result.append(UInt8(ascii: "%"))
                index += 3
            } else {
                result.append(name[index])
                index += 1
            }
        }
        return result
    }

    /// `%HH`, as libarchive writes what is not printable in an attribute's name.
    static func decodePercent(_ name: some Collection<UInt8>) -> [UInt8] {
        func hex(_ byte: UInt8) -> UInt8? {
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
            case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
            default: nil
            }
        }
        let name = Array(name)
        var result = [UInt8]()
        var index = 0
        while index < name.count {
            if name[index] == UInt8(ascii: "%"), index + 2 < name.count, let high = hex(name[index + 1]),
                let low = hex(name[index + 2])
            {
                result.append(high << 4 | low)
                index += 3
            } else {
                result.append(name[index])
                index += 1
            }
        }
        return result
    }
}

extension UnsafeRawBufferPointer {
    /// Whether these are the bytes of `text`, whose length is known to be the same.
    @inline(__always)
    fileprivate func equals(_ text: StaticString) -> Bool {
        guard let base = baseAddress, count == text.utf8CodeUnitCount else { return false }
        return unsafe memcmp(base, text.utf8Start, count) == 0
    }

    fileprivate func starts(with text: StaticString) -> Bool {
        guard let base = baseAddress, count >= text.utf8CodeUnitCount else { return false }
        return unsafe memcmp(base, text.utf8Start, text.utf8CodeUnitCount) == 0
    }
}
