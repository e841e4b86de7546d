import Glibc
import SystemPackage
import VarveCommands
import VarveSystem

// Runs one command line of varve in a process of its own, and says how much memory the process had at most.
//
//   peak-memory ARGUMENT…
//
// Prints two numbers: the exit code of the command, and the most bytes that this program has had in memory (VmHWM of proc(5)). What
// wait4(2) says would not do: it counts what the process had before exec(2), which is its parent's.

func peak() -> Int {
    let text = (try? FileDescriptor.workingDirectory.readFile("/proc/self/status", limit: 1 << 16)) ?? []
    let line = String(decoding: text, as: UTF8.self).split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
    return (line?.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) << 10
}

let code = VarveCommand.run(
    arguments: CommandLine.arguments.dropFirst().map { BytePath($0) }, standardOutput: OutputSink { _ in },
    standardError: .descriptor(.standardError))
print(code, peak())
