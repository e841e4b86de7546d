/* Stands for a shell and for true(1) in the images of Scripts/bench build: makes the file that its last argument names, if that is an
   absolute path, and else does nothing. */
#include <fcntl.h>
#include <unistd.h>

int main(int count, char **words) {
    const char *path = words[count - 1];
    if (count < 2 || path[0] != '/') return 0;
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    return file < 0 || write(file, "made\n", 5) != 5 || close(file) != 0;
}
