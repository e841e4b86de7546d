/// Memory of a fixed size at a page boundary, freed with its owner. The contents start out undefined.
@safe
final class AlignedBuffer {
    /// A page, so that a read from a file needs no bounce and slabs share no cache line.
    static let alignment = 4096

    let bytes: UnsafeMutableRawBufferPointer

    init(count: Int) {
        unsafe bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: Self.alignment)
    }

    deinit { unsafe bytes.deallocate() }
}
