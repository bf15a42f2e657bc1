# shellcheck shell=bash
# The Python environment that scripts/make-goldens, scripts/parity and scripts/bench share: .venv, ignored by git; some
# GB, since PyPI's torch brings CUDA along. To be sourced by bash at the repository's root, not run.

# Sets `python`: $2 where it is not empty, else .venv's with scripts/goldens/requirements.txt. $1: who asks.
choose_python() {
    local stamp=.venv/goldens-requirements.txt
    python=$2
    [[ -z $python ]] || return 0
    if [[ ! -x .venv/bin/python ]]; then
        echo "$1: creating .venv"
        python3 -m venv .venv || { echo "$1: python3 with the venv module is needed" >&2; exit 1; }
    fi
    if ! cmp -s scripts/goldens/requirements.txt "$stamp"; then
        echo "$1: installing scripts/goldens/requirements.txt"
        .venv/bin/python -m pip install --requirement scripts/goldens/requirements.txt
        cp scripts/goldens/requirements.txt "$stamp"
    fi
    python=.venv/bin/python
}

# Sets TRL_PPO_PYTHONPATH, if it is not set: a folder beside the environment with the last TRL that has PPO.
choose_ppo_trl() {
    [[ -z ${TRL_PPO_PYTHONPATH:-} ]] || return 0
    TRL_PPO_PYTHONPATH=$PWD/.venv/trl-ppo
    local stamp=$TRL_PPO_PYTHONPATH/requirements-ppo.txt wanted=scripts/goldens/requirements-ppo.txt
    if ! cmp -s "$wanted" "$stamp"; then
        echo "$1: installing $wanted"
        rm -rf "$TRL_PPO_PYTHONPATH"
        "$python" -m pip install --no-deps --target "$TRL_PPO_PYTHONPATH" --requirement "$wanted"
        cp "$wanted" "$stamp"
    fi
    export TRL_PPO_PYTHONPATH
}

# Nothing is fetched and nothing is reported.
stay_offline() {
    export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
    export TOKENIZERS_PARALLELISM=false
}
