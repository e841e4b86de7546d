import VarveFormats

/// Typed access: nil if a member is missing or null (Go writes null for an empty slice or map), an error if
/// it is of another type. `what` names the document in messages.
extension JSONObject {
    func string(_ key: String, of what: String) throws(OCIError) -> String? {
        guard let value = self[key], !value.isNull else { return nil }
        guard let string = value.string else { throw Self.wrongType(key, value, "a string", what) }
        return string
    }

    func object(_ key: String, of what: String) throws(OCIError) -> JSONObject? {
        guard let value = self[key], !value.isNull else { return nil }
        guard let object = value.object else { throw Self.wrongType(key, value, "an object", what) }
        return object
    }

    func array(_ key: String, of what: String) throws(OCIError) -> [JSONValue]? {
        guard let value = self[key], !value.isNull else { return nil }
        guard let array = value.array else { throw Self.wrongType(key, value, "an array", what) }
        return array
    }

    func strings(_ key: String, of what: String) throws(OCIError) -> [String]? {
        guard let values = try array(key, of: what) else { return nil }
        var result = [String]()
        result.reserveCapacity(values.count)
        for value in values {
            guard let string = value.string else {
                throw Self.wrongType(key, value, "an array of strings", what)
            }
            result.append(string)
        }
        return result
    }

    func integer(_ key: String, of what: String) throws(OCIError) -> Int64? {
        guard let value = self[key], !value.isNull else { return nil }
        guard let integer = value.int64 else {
            throw Self.wrongType(key, value, "an integer of 64 bits", what)
        }
        return integer
    }

    func bool(_ key: String, of what: String) throws(OCIError) -> Bool? {
        guard let value = self[key], !value.isNull else { return nil }
        guard let bool = value.bool else { throw Self.wrongType(key, value, "a boolean", what) }
        return bool
    }

    private static func wrongType(_ key: String, _ value: JSONValue, _ wanted: String, _ what: String)
        -> OCIError
    {
        .invalid("\(what) is invalid: \"\(key)\" must be \(wanted), not \(value.kind)")
    }
}
