import Glibc

/// Raises the soft limit of open files to the hard one: trees are walked with a descriptor for each level.
func raiseDescriptorLimit() {
    var limit = rlimit()
    guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0,
        limit.rlim_cur < limit.rlim_max
    else { return }
    limit.rlim_cur = limit.rlim_max
    _ = unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
}

/// Opens /dev/null for each of standard input, output and error that the caller closed: the next file to be opened
/// would else take its number, and messages would be written into it. Standard output is opened for reading alone, so that
/// writing results to it fails (EBADF), as it does for a closed one.
func openMissingStandardStreams() {
    for fd: CInt in 0...2 where fcntl(fd, F_GETFD) < 0 {
        if unsafe Glibc.open("/dev/null", fd == STDOUT_FILENO ? O_RDONLY : O_RDWR) < 0 { return }
    }
}
