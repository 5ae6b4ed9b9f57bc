# What the kernel could restore is what was decoded; it is not handed on.
says 'KHO restore succeeded'
entry in kho_test | head -1 | grep 'kho-test-v1 at 0x'
entry in kho_test | grep -x ' *nr_folios = [1-9][0-9]*'
