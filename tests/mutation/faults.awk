# Reads faults.txt, which says what its records look like.
#
#   awk -v mode=list          -f faults.awk faults.txt           ID, file, test, what it breaks: a line of each, with tabs
#   awk -v mode=check -v root=FOLDER -f faults.awk faults.txt    what is wrong with the list against the sources; exits 1
#   awk -v mode=plant -v root=FOLDER -v id=ID -f faults.awk faults.txt    the file with the fault in it

function complain(name, text) {
    print FILENAME ": " name ": " text
    wrong++
}

function contents(path,    text, line) {
    if (path in cache) return cache[path]
    text = ""
    while ((getline line < path) > 0) text = text line "\n"
    close(path)
    return cache[path] = text
}

function occurrences(text, part,    count, at) {
    for (count = 0; (at = index(text, part)) > 0; count++) text = substr(text, at + 1)
    return count
}

function check_record(    text, found) {
    if (name in seen) complain(name, "is there twice")
    seen[name] = 1
    if (file == "" || what == "" || test == "" || old == "") complain(name, "lacks a file, what it breaks, a test or a text")
    if (old == new) complain(name, "changes nothing")
    text = contents(root "/" file)
    if (text == "") { complain(name, "there is no " file); return }
    found = occurrences(text, old)
    if (found != 1) complain(name, "its text occurs " found " times in " file)
}

function plant(    text, at) {
    text = contents(root "/" file)
    at = index(text, old)
    printf "%s%s%s", substr(text, 1, at - 1), new, substr(text, at + length(old))
}

function finish() {
    if (name == "") return
    count++
    if (mode == "list") print name "\t" file "\t" test "\t" what
    if (mode == "check") check_record()
    if (mode == "plant" && name == id) plant()
    name = file = what = test = old = new = ""
}

function joined(text, line) { return text == "" ? line : text "\n" line }

/^#/ || /^$/ { next }
/^fault / { finish(); name = $2; next }
/^file / { file = $2; next }
/^what / { what = substr($0, 6); next }
/^test / { test = substr($0, 6); next }
/^-/ { old = joined(old, substr($0, 2)); next }
/^\+/ { new = joined(new, substr($0, 2)); next }
{ complain(name, "a line that is none: " $0) }

END {
    finish()
    if (mode == "check") print count " faults, " wrong + 0 " wrong"
    exit wrong > 0
}
