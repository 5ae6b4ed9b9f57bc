if side out | grep '^  !'; then exit 1; fi
# The tree is not kho's, and the exit status says so.
[ "$status" = 62 ]
entry out kexec-metadata | head -1 | grep 'version 1 at 0x'
kho dump --mainline --json | grep -q '"version": "kho-v4"'
