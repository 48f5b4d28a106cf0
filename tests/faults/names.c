/* Names of functions from the program's own symbol table, which has the static ones too. */
#include "faults/faults.h"
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct symbols {
    const ElfW(Sym) *items;
    size_t count;
    const char *names;
    uintptr_t base; /* where the program was loaded */
};

/* The first object is the program. */
static int take_base(struct dl_phdr_info *info, size_t bytes, void *base) {
    (void)bytes;
    *(uintptr_t *)base = info->dlpi_addr;
    return 1;
}

static struct symbols read_symbols(void) {
    struct symbols s = {0};
    struct stat info;
    const int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info)) return s;
    const char *file = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0); /* for the process's life */
    close(fd);
    if (file == MAP_FAILED) return s;
    const ElfW(Ehdr) *header = (const void *)file;
    const ElfW(Shdr) *sections = (const void *)(file + header->e_shoff);
    for (int i = 0; i < header->e_shnum; i++) {
        if (sections[i].sh_type != SHT_SYMTAB) continue;
        s.items = (const void *)(file + sections[i].sh_offset);
        s.count = sections[i].sh_size / sizeof *s.items;
        s.names = file + sections[sections[i].sh_link].sh_offset;
    }
    dl_iterate_phdr(take_base, &s.base);
    return s;
}

const char *fault_function(const void *address) {
    static struct symbols symbols;
    static char name[128];
    if (!symbols.items) symbols = read_symbols();
    const uintptr_t at = (uintptr_t)address - symbols.base - 1; /* a return address may be the next function's first */
    for (size_t i = 0; i < symbols.count; i++) {
        const ElfW(Sym) *symbol = &symbols.items[i];
        if (ELF64_ST_TYPE(symbol->st_info) != STT_FUNC || at < symbol->st_value || at - symbol->st_value >= symbol->st_size)
            continue;
        strncpy(name, symbols.names + symbol->st_name, sizeof name - 1);
        name[strcspn(name, ".")] = 0; /* make_sets.constprop.0 */
        return name;
    }
    return "?";
}
