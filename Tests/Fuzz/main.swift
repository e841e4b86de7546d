import FuzzTargets
import Glibc
import VarveSystem
import SystemPackage
import TestSupport

/// One target on inputs from libFuzzer, where the program was built with it, else from a seeded mutator: Scripts/fuzz.
///
///     fuzz list
///     fuzz seeds TARGET DIRECTORY          writes the inputs to start from
///     fuzz run TARGET [ARGUMENT]…          libFuzzer's own arguments; or: SECONDS SEED
///     fuzz try TARGET FILE…                what a file does
let arguments = CommandLine.arguments
guard arguments.count > 1, arguments[1] == "list" || arguments.count > 3 else {
    print("usage: fuzz list | seeds TARGET DIRECTORY | run TARGET [ARGUMENT]… | try TARGET FILE…")
    exit(2)
}
if arguments[1] == "list" {
    for target in FuzzTarget.all { print(target) }
    exit(0)
}
guard let target = FuzzTarget.all.first(where: { $0.name == arguments[2] }) else {
    print("fuzz: there is no target \(arguments[2]); fuzz list names them")
    exit(2)
}

do throws(Errno) {
    switch arguments[1] {
    case "seeds":
        let directory = SharedDescriptor(
            try FileDescriptor.workingDirectory.openDirectory(BytePath(arguments[3])))
        for (index, seed) in target.seeds().enumerated() {
            try directory.fd.writeFileDurably(BytePath("seed-\(index)"), seed)
        }
    case "try":
        for file in arguments[3...] {
            print(
                "\(file): \(check(target, try FileDescriptor.workingDirectory.readFile(BytePath(file), limit: 1 << 26)))"
            )
        }
    case "run":
        fuzz(target, Array(arguments[3...]))
    default:
        print("fuzz: \(arguments[1]) is none of list, seeds, run and try")
        exit(2)
    }
} catch {
    print("fuzz: \(error)")
    exit(1)
}
