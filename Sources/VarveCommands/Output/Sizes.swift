/// `12.3 MiB`: powers of 1024, three digits.
func binarySize(_ bytes: Int64) -> String {
    scaled(
        bytes, by: 1024, units: ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], digits: 3, separator: " ")
}

/// `12.35MB`: powers of 1000, four digits, as the `umoci stat` table shows sizes (go-units, `HumanSize`).
func decimalSize(_ bytes: Int64) -> String {
    scaled(bytes, by: 1000, units: ["B", "kB", "MB", "GB", "TB", "PB", "EB"], digits: 4, separator: "")
}

/// As C's `%.*g` prints it: that many digits, no zeros at the end of a fraction.
private func scaled(_ bytes: Int64, by factor: Double, units: [String], digits: Int, separator: String)
    -> String
{
    var value = Double(max(bytes, 0))
    var unit = 0
    while value >= factor, unit < units.count - 1 {
        value /= factor
        unit += 1
    }
    let whole = String(Int64(value)).count
    let decimals = unit == 0 ? 0 : max(0, digits - whole)
    var power: Int64 = 1
    for _ in 0..<decimals { power *= 10 }
    let rounded = Int64((value * Double(power)).rounded())
    var text = String(rounded / power)
    var fraction = String(rounded % power)
    fraction = String(repeating: "0", count: max(0, decimals - fraction.count)) + fraction
    while fraction.hasSuffix("0") { fraction.removeLast() }
    if decimals > 0, !fraction.isEmpty { text += "." + fraction }
    return text + separator + units[unit]
}
