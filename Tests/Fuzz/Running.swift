import FuzzTargets
import Glibc
import Synchronization
import TestSupport

/// Seconds of processor time that an input may take: no target needs a tenth of this for its slowest bytes, with AddressSanitizer too,
/// and a few KiB that cost their square need more.
private func timeLimit(_ bytes: [UInt8]) -> Double { 2 + Double(bytes.count) * 0.000_2 }

/// Runs one input; a finding ends the process, so that libFuzzer keeps the input.
func check(_ target: FuzzTarget, _ bytes: [UInt8]) -> FuzzTarget.Outcome {
    do {
        let start = ProcessorTime.now()
        let outcome = try target.run(bytes)
        let seconds = ProcessorTime.now() - start
        if seconds > timeLimit(bytes) {
            throw FuzzFinding("\(seconds) s of processor time for \(bytes.count) bytes")
        }
        return outcome
    } catch {
        print("finding in \(target): \(error)\n\(bytes.prefix(4000))")
        fflush(nil)
        abort()
    }
}

#if LIBFUZZER
    /// libFuzzer as a library (llvm docs, LibFuzzer, "Using libFuzzer as a library"). The pointers are `int *`, `char ***`
    /// and the callback.
    @_silgen_name("LLVMFuzzerRunDriver")
    private func runDriver(
        _ count: UnsafeMutableRawPointer, _ arguments: UnsafeMutableRawPointer,
        _ callback: @convention(c) (UnsafeRawPointer?, Int) -> CInt
    ) -> CInt

    private let current = Mutex<FuzzTarget?>(nil)

    private func tryOne(_ data: UnsafeRawPointer?, _ count: Int) -> CInt {
        if let target = current.withLock({ $0 }) {
            _ = unsafe check(target, Array(UnsafeRawBufferPointer(start: data, count: count)))
        }
        return 0
    }

    func fuzz(_ target: FuzzTarget, _ words: [String]) {
        current.withLock { $0 = target }
        let words = [CommandLine.arguments[0]] + words
        // They live as long as the process.
        let memory = UnsafeMutableRawBufferPointer.allocate(
            byteCount: 16 + 8 * (words.count + 1), alignment: 8)
        unsafe memory.storeBytes(of: CInt(words.count), as: CInt.self)
        guard let base = memory.baseAddress else { return }
        unsafe memory.storeBytes(of: base + 16, toByteOffset: 8, as: UnsafeMutableRawPointer.self)
        for (index, word) in words.enumerated() {
            unsafe memory.storeBytes(
                of: unsafe strdup(word), toByteOffset: 16 + 8 * index, as: UnsafeMutablePointer<CChar>?.self)
        }
        unsafe memory.storeBytes(of: 0, toByteOffset: 16 + 8 * words.count, as: Int.self)
        exit(unsafe runDriver(base, base + 8, tryOne))
    }
#else
    func fuzz(_ target: FuzzTarget, _ words: [String]) {
        let limit = words.first.flatMap { Int($0) } ?? 60
        let seeds = target.seeds()
        var mutator = Mutator(seed: words.dropFirst().first.flatMap { UInt64($0) } ?? 1, corpus: seeds)
        for seed in seeds { _ = check(target, seed) }
        let start = time(nil)
        var executions = 0
        var taken = 0
        while time(nil) - start < limit {
            if case .taken = check(target, mutator.next()) { taken += 1 }
            executions += 1
        }
        print("stat::number_of_executed_units: \(executions)\n\(taken) inputs taken, the others refused")
    }
#endif
