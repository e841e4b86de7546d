import Glibc
import Synchronization
import SystemPackage

/// Runs `body` on a thread of its own, which may change what belongs to a thread, and waits for it.
package func onThread<R: Sendable>(_ body: @escaping @Sendable () throws -> R) throws -> R {
    let result = ThreadResult<R>()
    let caller = ThreadBody {
        let value = Result { try body() }
        result.value.withLock { $0 = value }
    }
    var thread = pthread_t()
    let failure = unsafe pthread_create(
        &thread, nil,
        { raw in
            guard let raw = unsafe raw else { return nil }
            unsafe Unmanaged<ThreadBody>.fromOpaque(raw).takeRetainedValue().run()
            return nil
        }, Unmanaged.passRetained(caller).toOpaque())
    guard failure == 0 else { throw Errno(rawValue: failure) }
    pthread_join(thread, nil)
    guard let value = result.value.withLock({ $0 }) else { throw TestSupportError("the thread did not run") }
    return try value.get()
}

private final class ThreadResult<R: Sendable>: Sendable {
    let value = Mutex<Result<R, any Error>?>(nil)
}

private final class ThreadBody {
    let run: () -> Void
    init(_ run: @escaping () -> Void) { self.run = run }
}

/// syscall(2), which is variadic in C and so not seen from Swift. For what glibc does to all threads at once.
package func rawSystemCall(_ number: Int, _ a: Int = 0, _ b: Int = 0, _ c: Int = 0, _ d: Int = 0) throws
    -> Int
{
    typealias Call = @convention(c) (Int, Int, Int, Int, Int) -> Int
    guard let symbol = unsafe dlsym(nil, "syscall") else { throw TestSupportError("there is no syscall(2)") }
    let call = unsafe unsafeBitCast(symbol, to: Call.self)
    let result = call(number, a, b, c, d)
    if result == -1 { throw Errno(rawValue: errno) }
    return result
}

/// Numbers of asm/unistd.h.
package enum SystemCallNumber {
    #if arch(x86_64)
        package static let setResUID = 117, setResGID = 119, setGroups = 116, prctl = 157, unshare = 272,
            capGet = 125, capSet = 126
    #else
        package static let setResUID = 147, setResGID = 149, setGroups = 159, prctl = 167, unshare = 97,
            capGet = 90, capSet = 91
    #endif
}

/// Takes CAP_SYS_ADMIN from the calling thread, and from it alone (capget(2)): it may read everything still, and may
/// neither send a subvolume nor search its tree. For `onThread`.
package func dropSystemAdministration() throws {
    // struct __user_cap_header_struct with _LINUX_CAPABILITY_VERSION_3, and two struct __user_cap_data_struct.
    var header: [UInt32] = [0x2008_0522, 0]
    var sets: [UInt32] = [0, 0, 0, 0, 0, 0]
    try unsafe header.withUnsafeMutableBytes { header in
        try unsafe sets.withUnsafeMutableBytes { sets in
            let places = (Int(bitPattern: header.baseAddress), Int(bitPattern: sets.baseAddress))
            _ = try rawSystemCall(SystemCallNumber.capGet, places.0, places.1)
            let systemAdministration: UInt32 = 1 << 21
            for set in 0..<2 {
                let value = unsafe sets.load(fromByteOffset: set * 4, as: UInt32.self)
                unsafe sets.storeBytes(
                    of: value & ~systemAdministration, toByteOffset: set * 4, as: UInt32.self)
            }
            _ = try rawSystemCall(SystemCallNumber.capSet, places.0, places.1)
        }
    }
}
