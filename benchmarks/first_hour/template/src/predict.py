# Writes predictions.csv: python src/predict.py data=table data.new=new.csv model=mine ckpt_path=PATH
import hydra
import pandas
import rootutils
import torch

rootutils.setup_root(__file__, indicator=".project-root", pythonpath=True)


@hydra.main(version_base="1.3", config_path="../configs", config_name="eval.yaml")
def main(cfg):
    data, model = hydra.utils.instantiate(cfg.data), hydra.utils.instantiate(cfg.model)
    trainer = hydra.utils.instantiate(cfg.trainer, logger=False)
    found = torch.cat(trainer.predict(model, data, ckpt_path=cfg.ckpt_path))
    rows = pandas.read_csv(cfg.data.new)
    rows.assign(prediction=[data.labels[index] for index in found]).to_csv("predictions.csv", index=False)


if __name__ == "__main__":
    main()
