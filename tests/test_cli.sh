#!/bin/sh
# The program hekla as its users meet it: what bad input gets, and that interrupted and killed runs go on bit for bit.
#
#   test_cli.sh PROGRAM
set -u
hekla=$(realpath "$1")
work=$(mktemp -d "${TMPDIR:-/tmp}/hekla-cli.XXXXXX") || exit 1
failed=0 passed=0 background=
leave() {
    [ -z "$background" ] || kill -9 "$background" 2>/dev/null
    rm -rf "$work"
}
trap leave EXIT
cd "$work" || exit 1

pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAILED: $*" >&2
}

# expect STATUS PART COMMAND...: the exit status, and what stderr must contain
expect() {
    want=$1 part=$2
    shift 2
    "$@" >out 2>err
    status=$?
    if [ $status -ne "$want" ]; then
        fail "status $status, not $want: $*"
        cat err >&2
    elif [ -n "$part" ] && ! grep -qF -e "$part" err; then
        fail "stderr lacks \"$part\": $*"
        cat err >&2
    else
        pass
    fi
}
# as expect, and a run in the folder "new" must not have come into being
refuse() {
    expect "$@"
    [ ! -e new ] || { fail "left something behind: $*"; rm -rf new; }
}
that() { # NAME CONDITION...
    name=$1
    shift
    if "$@"; then pass; else fail "$name"; fi
}

seq 1 6000 >text
: >empty
echo "too short" >short
tiny="--layers 1 --heads 2 --width 16 --context 16 --batch 4 --device cpu"
train="$hekla train --data text $tiny"

# ---- Usage ----

expect 2 "Usage" "$hekla"
expect 0 "" "$hekla" --help
expect 0 "" "$hekla" --version
expect 2 "no command \"dance\"" "$hekla" dance
for command in devices train generate eval "bench step" "bench op" "bench generate" "bench start" bench tune; do
    # shellcheck disable=SC2086
    expect 0 "" "$hekla" $command --help
    that "--help of $command explains" grep -q "^Usage: hekla $command" out
done
refuse 2 "--data FILE is missing" "$hekla" train
refuse 2 "--layers must be a whole number from 1 to 1000, not \"many\"" "$hekla" train --data text --layers many
refuse 2 "--dropout must be a number" "$hekla" train --data text --dropout 1.5
refuse 2 "no option --lairs" "$hekla" train --data text --lairs 3
refuse 2 "no option -x" "$hekla" train --data text -xy
refuse 2 "no option -x" "$hekla" train -x
refuse 2 "no option --resume=5" "$hekla" train --resume=5
refuse 2 "--steps needs an argument" "$hekla" train --data text --steps
refuse 2 "choose one" "$hekla" train --data text --steps 3 --minutes 1
refuse 2 "--model must be gpt or llama" "$hekla" train --data text --model bert
refuse 2 "--precision must be f32, bf16 or f16, not \"i32\"" "$hekla" train --data text --precision i32
refuse 2 "--schedule must be" "$hekla" train --data text --schedule square
refuse 2 "one word too many" "$hekla" train text
expect 2 "DIR is missing" "$hekla" generate
expect 2 "--data FILE is missing" "$hekla" eval run
expect 2 "step or op" "$hekla" bench
expect 2 "--model NAME is missing" "$hekla" bench step
expect 2 "gpt-huge" "$hekla" bench step --model gpt-huge
expect 2 "--precision must be" "$hekla" bench step --model gpt-tiny --precision half
expect 2 "--precision must be" "$hekla" generate run --precision half
expect 2 "gpt-huge" "$hekla" bench generate --model gpt-huge
expect 2 "--model NAME is missing" "$hekla" bench start
expect 2 "--op must be one of matmul, matmul_i8, attention" "$hekla" bench op --op dance --shape 3x4
expect 2 "--shape must be [Bx]MxNxK" "$hekla" bench op --op matmul --shape 3x4
expect 2 "--shape must be" "$hekla" bench op --op softmax --shape 3x4x
expect 2 "--shape must be" "$hekla" bench op --op softmax --shape 3x0
expect 2 "--shape must be" "$hekla" bench op --op gelu --shape 1x2x3x4x5x6
expect 2 "--dtype must be" "$hekla" bench op --op matmul --shape 3x4x5 --dtype f64
expect 2 "adamw has no gradient" "$hekla" bench op --op adamw --shape 10 --gradient
expect 2 "--transpose must be" "$hekla" bench op --op matmul --shape 3x4x5 --transpose xx
expect 2 "one of --model, --run and --shape" "$hekla" tune
expect 2 "one of --model, --run and --shape" "$hekla" tune --model llama-2 --shape 2x2x2
expect 2 "--shape must be MxNxK" "$hekla" tune --shape 2x2x
expect 2 "gpt-huge" "$hekla" tune --model gpt-huge
expect 2 "--precision is for models" "$hekla" tune --shape 2x2x2 --precision bf16
expect 1 "absent" "$hekla" tune --run absent

# ---- Bad input ----

refuse 1 "cannot open absent: No such file" "$hekla" train --data absent --out new
refuse 1 "empty is empty" "$hekla" train --data empty --out new
refuse 1 "short is too short: a context of 64 needs 65 bytes to train on, it has 9 (of 10 in all)" \
    "$hekla" train --data short --out new --device cpu
refuse 1 "heads (5) do not divide width (128)" "$hekla" train --data text --out new --heads 5 --device cpu
refuse 1 "cpu" "$hekla" train --data text --out new --device vulkan:99
refuse 1 "cpu" "$hekla" train --data text --out new --device abacus
expect 1 "absent" "$hekla" generate absent
expect 1 "absent" "$hekla" eval absent --data text
expect 1 "absent" "$hekla" train --resume --out absent
mkdir bare
expect 1 "bare is no run: it has no config.json" "$hekla" generate bare
expect 1 "bare is no run" "$hekla" train --resume --out bare
expect 1 "cannot make folder" "$hekla" train --data text $tiny --steps 1 --out text/new
refuse 1 "cannot open absent" "$hekla" eval bare --data absent

# ---- A run, and what can be done with it ----

# shellcheck disable=SC2086
expect 0 "device cpu" $train --steps 20 --eval-every 10 --out run
for file in model.safetensors config.json tokenizer.json optimizer.safetensors state.json metrics.jsonl; do
    that "run has $file" test -s run/$file
done
that "no leftovers" test -z "$(find run -name '*.next' -o -name '*.part')"
that "held-out loss is printed" grep -q "held-out loss" out
# shellcheck disable=SC2086
expect 1 "run holds a run already" $train --steps 20 --out run
expect 0 "run is finished, at step 20" "$hekla" train --resume --out run --device cpu
expect 1 "--width is 16 in run, not 32" "$hekla" train --resume --out run --device cpu --width 32
expect 1 "--model is gpt in run, not llama" "$hekla" train --resume --out run --device cpu --model llama
expect 1 "--lr is 0.001 in run, not 0.003;" "$hekla" train --resume --out run --device cpu --lr 0.003 --steps 30
expect 1 "--seed is 1 in run, not 2" "$hekla" train --resume --out run --device cpu --seed 2 --steps 30
expect 1 "is not the text that run was trained on" "$hekla" train --resume --out run --data short --device cpu
expect 0 "" "$hekla" train --resume --out run --steps 25 --device cpu
that "resumed to the new end" grep -q '"step":[[:space:]]*25,' run/state.json
expect 0 "" "$hekla" generate run --prompt 12 --tokens 30 --device cpu
that "generate writes prompt, tokens and a line's end" test "$(wc -c <out)" -eq 33
cp out first
expect 0 "" "$hekla" generate run --prompt 12 --tokens 30 --device cpu
that "the same seed writes the same" cmp -s out first
expect 0 "" "$hekla" generate run --prompt "$(seq 1 50 | tr '\n' ' ')" --tokens 30 --temperature 0 --device cpu
expect 0 "" "$hekla" eval run --data text --json --device cpu
for key in loss perplexity bits_per_byte; do that "eval prints $key" grep -q "\"$key\":" out; done
expect 1 "too short" "$hekla" eval run --data short --device cpu
cp -r run moved && cp text text.moved
expect 0 "" "$hekla" train --resume --out moved --data text.moved --steps 27 --device cpu
that "a resumed run knows where its text is now" grep -q 'text.moved"' moved/state.json
# shellcheck disable=SC2086
expect 0 "" $train --model llama --steps 4 --out llama --json
that "--json prints steps" grep -q '"event":"step","step":4,' out
that "llama's config is Llama's" grep -q '"model_type":[[:space:]]*"llama"' llama/config.json
expect 0 "" "$hekla" generate llama --tokens 5 --device cpu
# shellcheck disable=SC2086
expect 0 "" $train --minutes 0.02 --eval-every 0 --out timed
expect 0 "" "$hekla" bench step --model llama-2 --steps 1 --warmup 0 --device cpu --check
for key in model device dtype params ms_per_step tokens_per_s loss peak_bytes submits dispatches fallbacks; do
    that "bench step prints $key" grep -q "\"$key\":" out
done
expect 0 "" "$hekla" bench op --op matmul --shape 33x65x17 --transpose nt --device cpu
that "bench op prints gflops" grep -q '"gflops":' out
# every op there is, on the CPU and on the Vulkan device, and against a reference
vulkan=
[ "$("$hekla" devices --json 2>/dev/null | grep -c '"vulkan')" = 0 ] || vulkan=vulkan
ops=$("$hekla" bench op --help | sed -n 's/^  \([a-z0-9_]*\)  .*\(x\|ANY\|ELEMENTS\).*/\1/p')
that "bench op lists its ops" [ "$(echo "$ops" | wc -w)" -ge 12 ]
for op in $ops; do
    gradient=--gradient
    case $op in
        matmul) shape=3x33x65x17 ;;
        matmul_i8) shape=3x33x65x17 gradient= ;;
        attention) shape=2x3x33x16 ;;
        adamw) shape=1000 gradient= ;;
        copy) shape=33x65 gradient= ;;
        *) shape=33x65 ;;
    esac
    for device in cpu $vulkan; do
        expect 0 "" "$hekla" bench op --op "$op" --shape $shape --check --seconds 0.05 --device $device
        that "bench op of $op has a small error on $device" grep -q '"error":[01]' out
    done
    [ -z "$gradient" ] || expect 0 "" "$hekla" bench op --op "$op" --shape $shape --check --seconds 0.05 $gradient --device cpu
done
expect 0 "" "$hekla" bench op --op matmul --shape 33x65x17 --transpose tn --dtype bf16 --check --seconds 0.05 --device cpu
expect 0 "" "$hekla" bench op --op matmul --shape 2x65x17 --transpose nt --dtype f32,f16 --check --seconds 0.05 --device cpu
expect 0 "" "$hekla" bench generate --model llama-2 --tokens 3 --device cpu
that "bench generate prints tokens_per_s" grep -q '"tokens_per_s":' out
expect 0 "" "$hekla" bench start --model llama-2 --device cpu
that "bench start prints beyond_step_ms" grep -q '"beyond_step_ms":' out
expect 0 "the CPU's kernels leave no choice" "$hekla" tune --shape 8x8x8 --device cpu
expect 0 "leave no choice" "$hekla" tune --run run --device cpu
if "$hekla" devices --json 2>/dev/null | grep -q '"device":"vulkan:0"'; then
    tune="$hekla tune --shape 40x50x60 --device vulkan:0 --file tuned.json"
    # shellcheck disable=SC2086
    expect 0 "1 shapes are not measured: the time was over" $tune --seconds 1e-9
    that "without time nothing is kept" test ! -e tuned.json
    # shellcheck disable=SC2086
    expect 0 "" $tune
    that "tune prints what it measured" grep -q '^matmul f32\*f32 nn 40x50x60 x1 .* matmul' out
    that "tune keeps it" grep -q '"work":.*"matmul f32\*f32 nn 40x50x60 x1 unaligned"' tuned.json
    cp tuned.json before.json
    # shellcheck disable=SC2086
    expect 0 "" $tune --json
    that "--json prints the kernels" grep -q '"kernel":"matmul' out
    that "what is measured is not measured again" cmp -s tuned.json before.json
    expect 1 "absent/tuned.json" "$hekla" tune --shape 40x50x60 --device vulkan:0 --file absent/tuned.json
fi
expect 0 "" "$hekla" devices --json
that "devices lists the cpu" grep -q '"device":"cpu"' out

# ---- Damaged runs ----

damage() { rm -rf damaged && cp -r run damaged; }
damage && head -c 500 run/model.safetensors >damaged/model.safetensors
expect 1 "damaged/model.safetensors: safetensors:" "$hekla" generate damaged --device cpu
damage && printf '\000\000\000\000\000\000\000\200{}' >damaged/model.safetensors
expect 1 "claims 9223372036854775808 bytes" "$hekla" generate damaged --device cpu
damage && : >damaged/optimizer.safetensors
expect 1 "damaged/optimizer.safetensors" "$hekla" train --resume --steps 30 --out damaged --device cpu
damage && LC_ALL=C sed 's/"updates":"25"/"updates":"-5"/' run/optimizer.safetensors >damaged/optimizer.safetensors
expect 1 "no number of steps" "$hekla" train --resume --steps 30 --out damaged --device cpu
damage && sed 's/"n_embd":[^,]*/"n_embd": 32/' run/config.json >damaged/config.json
expect 1 "the model needs [" "$hekla" generate damaged --device cpu
damage && sed 's/"n_head":[^,]*/"n_head": 3/' run/config.json >damaged/config.json
expect 1 "heads" "$hekla" generate damaged --device cpu
damage && sed 's/"vocab_size":[^,]*/"vocab_size": 99/' run/config.json >damaged/config.json
expect 1 "vocabulary of 99" "$hekla" generate damaged --device cpu
damage && echo '{"step"' >damaged/state.json
expect 1 "damaged/state.json" "$hekla" train --resume --steps 30 --out damaged --device cpu
# sizes whose product overflows to 0 must not become a small buffer
damage && sed 's/"batch":[^,]*/"batch": 4294967296/; s/"accumulate":[^,]*/"accumulate": 4294967296/' run/state.json \
    >damaged/state.json
expect 1 "does not say how the run is trained" "$hekla" train --resume --steps 30 --out damaged --device cpu
damage && rm damaged/state.json
expect 1 "state.json" "$hekla" train --resume --steps 30 --out damaged --device cpu
expect 0 "" "$hekla" generate damaged --tokens 3 --device cpu

# ---- Not a number ----

# shellcheck disable=SC2086
expect 1 "training stopped at step" $train --steps 50 --lr 1e20 --clip 0 --warmup 0 --out nan
that "a NaN is printed without a sign" grep -q ": the [a-z -]* is \(nan\|inf\)\." err
that "the last good checkpoint is named" grep -q "keeps the checkpoint of step 0" err
expect 0 "" "$hekla" generate nan --tokens 3 --device cpu
# weights that the step before made infinite are not saved either
# shellcheck disable=SC2086
expect 1 "training stopped at step" $train --steps 50 --lr 1e30 --clip 0 --warmup 0 --eval-every 1 --out nan2
that "the last good checkpoint is kept" grep -q "keeps the checkpoint of step 0" err

# ---- No space left ----

# the largest file may have 8 blocks: a new run does not fit, and leaves nothing; an old one stays as it was
limited() { sh -c 'ulimit -f 8 && exec "$@"' limited "$@"; }
# shellcheck disable=SC2086
refuse 1 "cannot write new/model.safetensors" limited $train --steps 5 --out new
cp -r run full
expect 1 "cannot write full/model.safetensors" limited "$hekla" train --resume --steps 40 --out full --device cpu
that "no room: the old model stays" cmp -s run/model.safetensors full/model.safetensors
that "no room: the old state stays" cmp -s run/state.json full/state.json
that "no room: no leftovers" test -z "$(find full -name '*.next' -o -name '*.part')"
expect 0 "" "$hekla" train --resume --steps 30 --out full --device cpu

# ---- Interrupted, killed, resumed: the same bits ----

long="$train --steps 600 --eval-every 40 --dropout 0.1 --accumulate 2"
begun=$(date +%s%N)
# shellcheck disable=SC2086
expect 0 "" $long --out whole
milliseconds=$((($(date +%s%N) - begun) / 1000000))

wait_for() { # FILE: until it is there and has something in it
    for _ in $(seq 600); do
        [ ! -s "$1" ] || return 0
        sleep 0.05
    done
    return 1
}
same_as_whole() {
    that "$1 ends with the weights of a run left alone" cmp -s whole/model.safetensors "$1/model.safetensors"
    that "$1 ends with its optimizer" cmp -s whole/optimizer.safetensors "$1/optimizer.safetensors"
    that "$1 logs each step once" test "$(grep -c '"loss"' whole/metrics.jsonl)" -eq "$(grep -c '"loss"' "$1/metrics.jsonl")"
}

$long --out interrupted >out 2>err &
background=$!
wait_for interrupted/metrics.jsonl || fail "no metrics after 30 s"
kill -INT $background
wait $background
that "Ctrl-C has status 1" test $? -eq 1
background=
that "Ctrl-C says how to go on" grep -q "hekla train --resume --out interrupted" err
expect 0 "" "$hekla" train --resume --out interrupted --device cpu
same_as_whole interrupted

kills=0
for percent in 3 9 14 11 19 7 16 12; do
    if [ -e killed/state.json ]; then how="$hekla train --resume --device cpu"; else how=$long; fi
    $how --out killed >out 2>err &
    background=$!
    sleep "$(echo "$milliseconds $percent" | awk '{ print $1 * $2 / 100000 }')"
    kill -9 $background 2>/dev/null && kills=$((kills + 1))
    wait $background 2>/dev/null
    background=
    [ ! -e killed/state.json ] || expect 0 "" "$hekla" generate killed --tokens 1 --device cpu
done
echo "killed $kills times, the last time after step $(sed -n 's/.*"step":[[:space:]]*\([0-9]*\).*/\1/p' killed/state.json)"
expect 0 "" "$hekla" train --resume --out killed --device cpu
same_as_whole killed

# a folder in which another process trains stays as it is, also where that has not saved anything yet
mkdir held
(flock 9 && echo yes >ready && exec sleep 600) 9<held &
background=$!
wait_for ready
# shellcheck disable=SC2086
expect 1 "another process is training in held" $train --steps 2 --out held
that "nothing is written where another trains" test -z "$(ls held)"
kill $background
wait $background 2>/dev/null
background=

# killed when all was saved and not yet renamed: a finished run gets its files' names
cp -r whole unnamed
for file in model optimizer; do
    mv unnamed/$file.safetensors unnamed/$file.safetensors.next
    cp run/$file.safetensors unnamed
done
expect 0 "is finished" "$hekla" train --resume --out unnamed --device cpu
same_as_whole unnamed

# in mixed precision the loss's scale goes on, too
# shellcheck disable=SC2086
expect 0 "" $long --precision f16 --out whole16
that "f16 is not f32" sh -c '! cmp -s whole/model.safetensors whole16/model.safetensors'
# shellcheck disable=SC2086
$long --precision f16 --out killed16 >out 2>err &
background=$!
wait_for killed16/metrics.jsonl || fail "no metrics after 30 s"
sleep "$(echo "$milliseconds" | awk '{ print $1 / 4000 }')"
kill -9 $background
wait $background 2>/dev/null
background=
expect 1 "--precision is f16 in killed16, not bf16" "$hekla" train --resume --out killed16 --precision bf16 --device cpu
expect 0 "" "$hekla" train --resume --out killed16 --device cpu
for file in model.safetensors optimizer.safetensors; do
    that "killed16 ends as a run left alone: $file" cmp -s whole16/$file killed16/$file
done
expect 0 "" "$hekla" generate killed16 --precision bf16 --tokens 3 --device cpu

# a second Ctrl-C does not wait for the step, which takes long here
$hekla train --data text --width 512 --batch 32 --accumulate 100 --device cpu --out slow >out 2>err &
background=$!
if wait_for slow/metrics.jsonl || wait_for slow/state.json; then
    sleep 0.5
    kill -INT $background
    sleep 0.2
    kill -INT $background
    wait $background
    that "a second Ctrl-C stops at once" test $? -eq 130
else
    fail "the slow run did not start"
fi
background=

echo "$passed checks passed, $failed failed"
[ "$failed" -eq 0 ]
